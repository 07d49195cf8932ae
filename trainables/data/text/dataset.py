"""GLUE tasks in memory: three token splits, with the test split read only on first access.

Texts are read and tokenised once per (file content, tokeniser, maximum length). The result is stored in the cache of
decoded datasets. Cached files are verified on read, and rebuilt if damaged. If the cache is not writable, each process
keeps the data in memory.

Every text model takes **one int32 tensor (B, 2, L)**. Row 0 of a sample holds the token ids, padded at the end with 0.
The id 0 is always `[PAD]`, which is checked. Row 1 holds the segment ids: 0 for the first text and for padding, 1 for
the second text. The attention mask is `inputs[:, 0] != 0`. L is the length of the longest sample in the batch, rounded
up to a multiple of 8.
"""

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainables.data.dataset import Dataset, Split, digest_of
from trainables.data.image_folder import Part
from trainables.data.sources import DataError
from trainables.data.text.samples import Samples, read_samples
from trainables.data.text.source_split import COMMON, SourceSplit, sources_of, split_by_source
from trainables.data.text.tokeniser import (
    DEFAULT_VOCABULARY,
    MAX_LENGTH,
    Tokeniser,
    as_stored,
    from_stored,
    load_tokeniser,
    train_tokeniser,
)
from trainables.data.text.tokens import TokenFiles, Tokens, padded_length, tokenise
from trainables.spec.datasets import DatasetInfo
from trainables.spec.glue import GlueTask
from trainables.spec.trial import seed_of_split
from trainables.storage.atomic import StoredFileError, locked, write_atomically
from trainables.storage.remote_folder import node_cache
from trainables.storage.tensors import read_tensors, write_tensors

EVALUATION_BATCH: Final = 64

Kept = TypeVar("Kept")
_FORMAT: Final = 2  # increase it when reading changes


class TextSplit(Split):
    """Subset of a task's samples.

    Args:
        tokens: tokens of the dataset part with the samples.
        labels: (N,) int64.
        indices: (N,) int64, row of each sample in the part.
    """

    def __init__(self, tokens: Tokens, labels: Tensor, indices: Tensor) -> None:
        super().__init__(tokens.ids, labels, indices, image_size=0)
        self.tokens = tokens
        self.lengths = tokens.lengths[indices]

    @property
    def images(self) -> Tensor:
        """Unavailable, because texts have no images.

        Raises:
            TypeError: always.
        """
        raise TypeError("a text split has no images; use `batch` to get tokens")

    def batch(self, indices: Tensor, *, length: int | None = None) -> Tensor:
        """Return samples as model inputs (B, 2, L) int32; the format is described in the module docstring.

        Args:
            indices: (B,) int64, positions in this split.
            length: L; defaults to the longest sample's padded length.
        """
        return self.tokens.batch(self.indices[indices], length=length)

    def to(self, device: torch.device) -> "TextSplit":
        """Return the same split with all tensors on a device."""
        return TextSplit(self.tokens.to(device), self.labels.to(device), self.indices.to(device))


class TextDataset(Dataset):
    """Train, validation and test split of one task.

    Args:
        info: registry entry.
        train: training data for students, adapters and teachers.
        validation: data for the search and for all per-epoch metrics.
        read_test: reads the test split. Called on first access to `test`, never earlier.
        seed: split seed.
        split_number: number of the train/validation split.
        digest: sha256 of texts, labels, tokeniser, maximum length and split, hexadecimal.
        tokeniser: tokeniser for all texts.
        max_length: maximum sample length in tokens.
        source_counts: result of `count_sources`; empty if the split is not by source.
    """

    train: TextSplit
    validation: TextSplit

    def __init__(
        self,
        info: DatasetInfo,
        *,
        train: TextSplit,
        validation: TextSplit,
        read_test: Callable[[], TextSplit],
        seed: int,
        digest: str,
        split_number: int = 0,
        tokeniser: Tokeniser,
        max_length: int,
        source_counts: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(
            info,
            train=train,
            validation=validation,
            read_test=read_test,
            seed=seed,
            split_number=split_number,
            digest=digest,
        )
        assert info.task is not None
        self.task: GlueTask = info.task
        self.tokeniser = tokeniser
        self.max_length = max_length
        self.source_counts = dict(source_counts or {})
        self.vocabulary_size = tokeniser.vocabulary_size
        self.mean = self.std = ()  # text has no channels

    @property
    def test(self) -> TextSplit:
        """Test split. Only the final confirmation reads it; nothing reads it during a search."""
        split = super().test
        assert isinstance(split, TextSplit)
        return split


def load_text_dataset(
    info: DatasetInfo,
    root: Path | None,
    *,
    seed: int,
    split_number: int = 0,
    tokeniser_folder: Path | None = None,
) -> TextDataset:
    """Load a task from files. The validation split consists of whole sources of the training part.

    Args:
        info: the dataset.
        root: data root, read-only.
        seed: draws the split.
        split_number: number of the split into train and validation.
        tokeniser_folder: model folder with `tokenizer.json` or `vocab.txt`. If not given, a tokeniser is trained on the
            train split.

    Raises:
        DataError: a file is invalid. The message names file, row and problem.
    """
    cache = node_cache() / "datasets"
    part = _Part(info, root, "train", cache)
    split = part.split(info, seed=seed_of_split(seed, split_number))
    train, validation = split.train, split.validation
    if tokeniser_folder is not None:
        tokeniser = load_tokeniser(tokeniser_folder)
    else:
        tokeniser = part.trained_tokeniser(train, DEFAULT_VOCABULARY)
    tokens = part.tokens(tokeniser, MAX_LENGTH)

    @functools.cache
    def read_test() -> TextSplit:
        test = _Part(info, root, "test", cache)
        return _split(test, test.tokens(tokeniser, MAX_LENGTH), np.arange(len(test.labels)))

    return TextDataset(
        info,
        train=_split(part, tokens, train),
        validation=_split(part, tokens, validation),
        read_test=read_test,
        seed=seed,
        split_number=split_number,
        digest=digest_of(f"{info.name}|{part.digest}|{tokeniser.digest}|{MAX_LENGTH}", train, validation),
        tokeniser=tokeniser,
        max_length=MAX_LENGTH,
        source_counts=_source_counts(split),
    )


def count_sources(info: DatasetInfo, root: Path | None, *, seed: int) -> dict[str, int]:
    """Count the sources of a task without tokenising: `sources` in the training part, and `validation_sources`.

    Args:
        info: the dataset.
        root: data root, read-only.
        seed: draws the split.

    Raises:
        DataError: a file is invalid. The message names file, row and problem.
    """
    return _source_counts(_Part(info, root, "train", node_cache() / "datasets").split(info, seed=seed))


def longest_batch(info: DatasetInfo, root: Path | None, tokeniser: Tokeniser) -> int:
    """Return the padded length of a batch with the longest sample of a task, in either part.

    Only sample lengths are used from the development part.

    Args:
        info: the dataset.
        root: data root, read-only.
        tokeniser: tokeniser for the texts.

    Raises:
        DataError: a file is invalid. The message names file, row and problem.
    """
    parts: tuple[Part, Part] = ("train", "test")
    tokens = (_Part(info, root, part, node_cache() / "datasets").tokens(tokeniser, MAX_LENGTH) for part in parts)
    return padded_length(max(int(each.lengths.max()) for each in tokens))


def _source_counts(split: SourceSplit) -> dict[str, int]:
    return {"sources": split.sources, "validation_sources": split.validation_sources}


def _split(part: "_Part", tokens: Tokens, rows: np.ndarray) -> TextSplit:
    return TextSplit(tokens, torch.from_numpy(part.labels[rows]), torch.from_numpy(rows.astype(np.int64)))


@dataclass(frozen=True)
class _Summary:
    """Labels, sources and digest of a part, cached with the tokens. The development part has no sources."""

    labels: np.ndarray
    sources: np.ndarray
    digest: str


class _Part:
    """A task's training or development part, with a folder in the cache."""

    def __init__(self, info: DatasetInfo, root: Path | None, part: Part, cache: Path) -> None:
        assert info.task is not None
        self._task, self._training = info.task, part == "train"
        files = list((info.find_files(root) or {}).values())
        self._path = files[0 if self._training else 1]  # ordered as `GlueTask.layouts`
        with self._path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        self._key = hashlib.sha256(
            json.dumps([_FORMAT, info.name, part, self._path.suffixes, content]).encode()
        ).hexdigest()
        self._folder = cache / f"{info.name.replace(':', '-')}-{part}-{self._key[:16]}"
        summary = self._cached(self._read_summary, self._write_summary, self._summarise)
        self.labels, self.digest = summary.labels, summary.digest
        self._sources = summary.sources

    def split(self, info: DatasetInfo, *, seed: int) -> SourceSplit:
        """Split the training rows into train and validation, by whole sources."""
        try:
            return split_by_source(self.labels, self._sources, info.split_sizes[1], seed=seed)
        except DataError as error:
            raise DataError(f"{self._path}: {error}") from None

    @functools.cached_property
    def _samples(self) -> Samples:
        """Samples parsed from the file, needed only if the cache is incomplete."""
        return read_samples(self._task, self._path, training=self._training)

    def trained_tokeniser(self, rows: np.ndarray, vocabulary_size: int) -> Tokeniser:
        """Return a tokeniser trained on the given samples, from the cache if possible."""
        about = {"texts": digest_of(self.digest, rows), "vocabulary_size": vocabulary_size, "format": _FORMAT}
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"tokeniser-{name}.json"

        def train() -> Tokeniser:
            texts = [column[row] for column in self._samples.texts for row in rows]
            return train_tokeniser(texts, vocabulary_size=vocabulary_size)

        def read() -> Tokeniser | None:
            return from_stored(path.read_bytes(), about) if path.exists() else None

        return self._cached(read, lambda found: write_atomically(path, as_stored(found, about)), train)

    def tokens(self, tokeniser: Tokeniser, max_length: int) -> Tokens:
        """Return all samples' tokens, from the cache if possible."""
        files = TokenFiles(self._folder, self.digest, tokeniser, max_length)
        return self._cached(
            files.read, files.write, lambda: tokenise(tokeniser, self._samples.texts, max_length=max_length)
        )

    def _cached(self, read: Callable[[], Kept | None], write: Callable[[Kept], None], make: Callable[[], Kept]) -> Kept:
        """Read an object from the cache. If the object is missing or damaged, make and write it first."""
        try:
            with locked(self._folder / "lock"):
                found = read()
                if found is None:
                    write(make())
                    found = read()
            if found is not None:
                return found
        except OSError as error:
            warnings.warn(
                f"{self._folder}: cannot cache tokens there ({error}); each process makes its own copy", stacklevel=2
            )
        return make()

    def _read_summary(self) -> _Summary | None:
        try:
            tensors, about = read_tensors(self._folder / "samples.safetensors")
        except StoredFileError:
            return None
        if about["key"] != self._key:
            return None
        return _Summary(tensors["labels"].numpy(), tensors["sources"].numpy(), about["digest"])

    def _write_summary(self, summary: _Summary) -> None:
        about = {"key": self._key, "digest": summary.digest}
        tensors = {name: torch.from_numpy(getattr(summary, name)) for name in ("labels", "sources")}
        write_tensors(self._folder / "samples.safetensors", tensors, about)

    def _summarise(self) -> _Summary:
        texts, labels, digest = self._samples.texts, self._samples.labels, self._samples.digest
        sources = sources_of(texts, self._task.sources) if self._training else np.full(len(labels), COMMON)
        return _Summary(labels, sources, digest)


def on_device(split: TextSplit, device: torch.device) -> TextSplit:
    """Return the split with tokens on the device. On the CPU, this is the memory-mapped file itself."""
    return split if device.type == "cpu" else split.to(device)
