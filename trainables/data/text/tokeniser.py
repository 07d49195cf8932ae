"""Tokenisers: either from a model folder, or WordPiece trained on a task's train split.

`[PAD]` always has id 0, because batches use 0 to mark padding. Other tokenisers are rejected.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainables.data.sources import DataError

try:
    import tokenizers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
except ImportError as error:
    raise DataError("text datasets need the extra 'text': pip install 'pesfkd[text]'") from error

# Each process uses one thread. With library threads, the library would warn when a process forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DEFAULT_VOCABULARY: Final = 8_000
MAX_LENGTH: Final = 128
_PAD, _UNKNOWN, _FIRST, _BETWEEN, _MASK = _SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUES: Final = "##"
_LARGEST_ALPHABET: Final = 1_000
# Models round the number of embedding rows up to a multiple of this number or a smaller one.
_ROUNDED_TO: Final = 128


@dataclass(frozen=True)
class Tokeniser:
    """Tokeniser for texts and text pairs.

    Args:
        backend: tokeniser of the `tokenizers` library, without padding and truncation.
        digest: sha256 of the serialised tokeniser, hexadecimal.
    """

    backend: Tokenizer
    digest: str

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def json(self) -> str:
        """Content of a `tokenizer.json`."""
        return str(self.backend.to_str(pretty=False))


def train_tokeniser(texts: Sequence[str], *, vocabulary_size: int = DEFAULT_VOCABULARY) -> Tokeniser:
    """Train a lower-case WordPiece tokeniser like BERT's. The same texts always give the same tokeniser.

    The library numbers pieces in hash table order, which differs between processes. To make training reproducible, all
    single characters are numbered in sorted order beforehand, both as the start of a word and as a continuation. The
    other pieces' numbers follow from these.

    Args:
        texts: training texts.
        vocabulary_size: maximum number of tokens, special tokens included.

    Raises:
        ValueError: the vocabulary is too small for the texts' characters.
    """
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    counts = Counter({character: count for character, count in counts.items() if not character.isspace()})
    alphabet = sorted(sorted(counts, key=lambda each: (-counts[each], each))[:_LARGEST_ALPHABET])
    numbered = [*_SPECIAL, *alphabet, *(_CONTINUES + each for each in alphabet)]
    if vocabulary_size < len(numbered):
        raise ValueError(
            f"a vocabulary of {vocabulary_size} tokens cannot hold {len(alphabet)} characters, each once as the "
            f"first and once as a later character of a word: use {len(numbered)} or more"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        special_tokens=numbered,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_CONTINUES,
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizer
    learner.train_from_iterator(texts, trainer)
    return _wordpiece(learner.get_vocab(with_added_tokens=True), lowercase=True)


def _wordpiece(vocabulary: dict[str, int], *, lowercase: bool) -> Tokeniser:
    """Build BERT's tokeniser with a given vocabulary."""
    backend = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=_UNKNOWN, max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens([token for token in _SPECIAL if token in vocabulary])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_FIRST} $A {_BETWEEN}",
        pair=f"{_FIRST} $A {_BETWEEN} $B:1 {_BETWEEN}:1",
        special_tokens=[(token, vocabulary[token]) for token in (_FIRST, _BETWEEN)],
    )
    return parse_tokeniser(backend.to_str(), where="the trained tokeniser")


def load_tokeniser(folder: Path) -> Tokeniser:
    """Load the tokeniser in a model folder: `tokenizer.json`, or BERT's `vocab.txt` with `tokenizer_config.json`.

    Raises:
        DataError: there is no tokeniser, or it cannot be used. The message names the file.
    """
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if whole.exists():
            return parse_tokeniser(whole.read_text(encoding="utf-8"), where=str(whole))
        if not vocabulary.exists():
            raise DataError(f"{folder}: contains no tokeniser; expected tokenizer.json or vocab.txt")
        tokens = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        settings = folder / "tokenizer_config.json"
        config = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{folder}: the tokeniser cannot be read ({error})") from error
    ids = {token.removesuffix("\r"): number for number, token in enumerate(tokens)}
    missing = [token for token in (_PAD, _UNKNOWN, _FIRST, _BETWEEN) if token not in ids]
    if missing or len(ids) != len(tokens):
        raise DataError(
            f"{vocabulary}: not a BERT vocabulary: "
            + (f"it lacks {', '.join(missing)}" if missing else f"{len(tokens) - len(ids)} tokens are repeated")
        )
    return _wordpiece(ids, lowercase=bool(config.get("do_lower_case", True)))


def parse_tokeniser(content: str, *, where: str) -> Tokeniser:
    """Parse the content of a `tokenizer.json`.

    Args:
        content: file content.
        where: file name, for messages.

    Raises:
        DataError: the content is not a tokeniser, or id 0 is not a padding token.
    """
    try:
        backend = Tokenizer.from_str(content)
    except Exception as error:  # the library raises no narrower exception
        raise DataError(f"{where}: not a tokeniser of tokenizers {tokenizers.__version__} ({error})") from error
    backend.no_padding()
    backend.no_truncation()
    padding = backend.id_to_token(0)
    if padding not in (_PAD, "<pad>"):
        raise DataError(
            f"{where}: token 0 is {padding!r}; batches are padded with 0, so token 0 must be {_PAD}, as in BERT "
            "vocabularies"
        )
    digest = hashlib.sha256(backend.to_str().encode()).hexdigest()
    backend.encode_special_tokens = True  # read [PAD] or [SEP] within a text as plain characters
    return Tokeniser(backend, digest)


def check_vocabulary(tokeniser: Tokeniser, rows: int, *, where: str) -> None:
    """Check that a tokeniser fits a model: the embedding has one row per token, or is rounded up.

    Args:
        tokeniser: tokeniser for the texts.
        rows: number of rows in the model's token embedding.
        where: model name, for messages.

    Raises:
        ValueError: the sizes do not match. The message names both.
    """
    size = tokeniser.vocabulary_size
    if not size <= rows < size + _ROUNDED_TO:
        raise ValueError(
            f"{where} has embeddings for {rows:,} tokens, but the tokeniser has {size:,}: they do not match; put "
            "the tokeniser that the model was trained with in the model's folder"
        )


def as_stored(tokeniser: Tokeniser, about: dict[str, Any]) -> bytes:
    """Serialise a tokeniser to file content that `from_stored` can verify.

    Args:
        tokeniser: tokeniser to store.
        about: tokeniser description, compared on reading.
    """
    return json.dumps({"about": about, "digest": tokeniser.digest, "tokenizer": tokeniser.json}).encode()


def from_stored(content: bytes, about: dict[str, Any]) -> Tokeniser | None:
    """Parse stored file content. Return None if it is damaged or has another description `about`."""
    try:
        found = json.loads(content)
        if found["about"] != about:
            return None
        tokeniser = parse_tokeniser(found["tokenizer"], where="the stored tokeniser")
    except (ValueError, LookupError, TypeError):
        return None
    return tokeniser if tokeniser.digest == found["digest"] else None
