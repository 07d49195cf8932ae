import json
import subprocess
import sys

import pytest

from trainables.data.sources import DataError
from trainables.data.text.tokeniser import (
    as_stored,
    check_vocabulary,
    from_stored,
    load_tokeniser,
    parse_tokeniser,
    train_tokeniser,
)

TEXTS = ["The film is very good .", "a dull film", "It's not a bad plot , is it ?", "brighter than the brightest"] * 5
BERT = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "##s", "The"]


def ids_of(tokeniser, *texts):
    return tokeniser.backend.encode(*texts).ids


def tokens_of(tokeniser, *texts):
    return tokeniser.backend.encode(*texts).tokens


@pytest.mark.launcher
def test_every_process_trains_the_same_vocabulary():
    # The library's hash tables have a new seed in each process.
    program = (
        "from tests.trainables.data.text.test_tokeniser import TEXTS\n"
        "from trainables.data.text.tokeniser import train_tokeniser\n"
        "print(train_tokeniser(TEXTS, vocabulary_size=90).digest)"
    )
    here = train_tokeniser(TEXTS, vocabulary_size=90).digest
    others = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert others == [here, here]
    assert train_tokeniser(TEXTS[1:4], vocabulary_size=90).digest != here


def test_a_trained_tokeniser_begins_with_padding_and_frames_texts_and_pairs_as_bert_does():
    tokeniser = train_tokeniser(TEXTS, vocabulary_size=100)
    assert tokeniser.vocabulary_size <= 100
    assert [tokeniser.backend.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    found = tokens_of(tokeniser, "The FILM", "a film")
    assert (found[0], found[-1], found.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    encoded = tokeniser.backend.encode("film", "film")
    first = encoded.tokens.index("[SEP]") + 1
    assert encoded.type_ids == [0] * first + [1] * (len(encoded.ids) - first)
    assert ids_of(tokeniser, "THE FILM") == ids_of(tokeniser, "the film")


def test_a_vocabulary_too_small_for_the_characters_is_refused():
    with pytest.raises(ValueError, match="a vocabulary of 20 tokens cannot hold"):
        train_tokeniser(TEXTS, vocabulary_size=20)


def test_a_text_that_names_a_special_token_means_its_characters():
    tokeniser = train_tokeniser([*TEXTS, "[PAD] [SEP]"], vocabulary_size=120)
    found = tokeniser.backend.encode("a [PAD] film [SEP]")
    assert 0 not in found.ids
    assert found.tokens.count("[SEP]") == 1


def write_bert(folder, tokens=BERT, **config):
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("lower", "expected"), [(True, [3, 6, 7, 8, 4]), (False, [3, 9, 7, 8, 4])])
def test_berts_vocabulary_is_read_as_transformers_reads_it(lower, expected, tmp_path):
    from transformers import BertTokenizerFast

    write_bert(tmp_path, do_lower_case=lower)
    tokeniser = load_tokeniser(tmp_path)
    assert ids_of(tokeniser, "The films") == expected
    theirs = BertTokenizerFast.from_pretrained(tmp_path)
    assert theirs("The films", "the film")["input_ids"] == ids_of(tokeniser, "The films", "the film")
    theirs.save_pretrained(tmp_path / "saved")
    again = load_tokeniser(tmp_path / "saved")
    assert ids_of(again, "The films", "film") == ids_of(tokeniser, "The films", "film")


def test_a_folder_without_a_usable_tokeniser_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"contains no tokeniser; expected tokenizer\.json or vocab\.txt"):
        load_tokeniser(tmp_path)
    write_bert(tmp_path, ["[PAD]", "[UNK]", "a", "b"])
    with pytest.raises(DataError, match=r"vocab.txt: not a BERT vocabulary: it lacks \[CLS\], \[SEP\]"):
        load_tokeniser(tmp_path)
    write_bert(tmp_path, [*BERT, "film"])
    with pytest.raises(DataError, match="1 tokens are repeated"):
        load_tokeniser(tmp_path)
    write_bert(tmp_path, [BERT[1], BERT[0], *BERT[2:]])
    with pytest.raises(DataError, match=r"token 0 is '\[unused0\]'; batches are padded with 0"):
        load_tokeniser(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer.json: not a tokeniser of tokenizers"):
        load_tokeniser(tmp_path)


@pytest.mark.parametrize(("rows", "fits"), [(9, False), (10, True), (64, True), (137, True), (138, False)])
def test_a_tokeniser_belongs_to_an_embedding_of_its_size_or_rounded_up(rows, fits, tmp_path):
    write_bert(tmp_path)
    tokeniser = load_tokeniser(tmp_path)
    if fits:
        check_vocabulary(tokeniser, rows, where="models/bert")
    else:
        with pytest.raises(ValueError, match=f"models/bert has embeddings for {rows} tokens, but the tokeniser has 10"):
            check_vocabulary(tokeniser, rows, where="models/bert")


def test_a_stored_tokeniser_is_read_back_and_a_damaged_one_is_not():
    tokeniser = train_tokeniser(TEXTS, vocabulary_size=90)
    content = as_stored(tokeniser, {"of": "x"})
    found = from_stored(content, {"of": "x"})
    assert found is not None
    assert found.digest == tokeniser.digest == parse_tokeniser(tokeniser.json, where="x").digest
    assert from_stored(content, {"of": "y"}) is None
    assert from_stored(content[:-9], {"of": "x"}) is None
    assert from_stored(content.replace(b"film", b"fi1m"), {"of": "x"}) is None
