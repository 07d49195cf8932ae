"""Tokenised texts: rows of different lengths in one array, stored as Arrow and memory-mapped by all processes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.data.sources import DataError
from trainables.data.text.tokeniser import Tokeniser
from trainables.storage.atomic import StoredFileError
from trainables.storage.rows import map_rows, write_rows
from trainables.storage.tensors import read_tensors, write_tensors

PADDED_TO: Final = 8
_CHUNK: Final = 8192
_ID_BYTES: Final = 4
_FORMAT: Final = 1  # increase it when tokenising changes


class Tokens(NamedTuple):
    """Tokens for N samples.

    Args:
        ids: (T,) int32, concatenated token ids of all samples, without padding. The id 0 does not occur.
        offsets: (N + 1,) int64, start of each sample in `ids`, followed by T.
        firsts: (N,) int64, token count of the first text, with the special tokens before and after it. The remaining
            tokens belong to segment 1.
    """

    ids: Tensor
    offsets: Tensor
    firsts: Tensor

    @property
    def lengths(self) -> Tensor:
        """Token count per sample, (N,) int64."""
        return self.offsets.diff()

    def to(self, device: torch.device) -> "Tokens":
        """Return the same tokens on a device."""
        return Tokens(*(each.to(device) for each in self))

    def batch(self, rows: Tensor, *, length: int | None = None) -> Tensor:
        """Return samples as model inputs.

        Args:
            rows: (B,) int64, sample rows.
            length: L; defaults to the longest sample's length, rounded up to a multiple of 8.

        Returns:
            (B, 2, L) int32: token ids, padded at the end with 0, and segment ids.
        """
        starts, ends = self.offsets[rows, None], self.offsets[rows + 1, None]
        if length is None:
            length = padded_length(int((ends - starts).max()))
        places = torch.arange(length, device=rows.device)
        at = starts + places
        inside = at < ends
        ids = self.ids[torch.where(inside, at, starts)] * inside
        second = (places >= self.firsts[rows, None]) & inside
        return torch.stack([ids, second.to(torch.int32)], dim=1)


def padded_length(longest: int) -> int:
    """Return a batch's padded length, given the longest sample's length."""
    return -(-longest // PADDED_TO) * PADDED_TO


def tokenise(tokeniser: Tokeniser, texts: Sequence[list[str]], *, max_length: int) -> Tokens:
    """Tokenise texts or text pairs. Long samples are truncated; in a pair, the longer text is truncated first.

    Args:
        tokeniser: provides ids and adds special tokens around and between texts.
        texts: N first texts and, for pairs, N second texts.
        max_length: maximum sample length in tokens, special tokens included.

    Raises:
        DataError: the tokeniser gives a text the padding id.
    """
    backend = tokeniser.backend
    ids, lengths, firsts = [], [], []
    backend.enable_truncation(max_length, strategy="longest_first")
    try:
        for start in range(0, len(texts[0]), _CHUNK):
            chunk = [column[start : start + _CHUNK] for column in texts]
            pairs = chunk[0] if len(chunk) == 1 else list(zip(*chunk, strict=True))
            for encoded in backend.encode_batch_fast(pairs):
                ids.append(np.array(encoded.ids, dtype=np.int32))
                lengths.append(len(encoded.ids))
                firsts.append(len(encoded.ids) - sum(encoded.type_ids))
    finally:
        backend.no_truncation()
    flat = np.concatenate(ids)
    if not flat.all():
        sample = int(np.searchsorted(np.cumsum(lengths), np.flatnonzero(flat == 0)[0], side="right"))
        raise DataError(
            f"the tokeniser gives sample {sample + 1} a token with id 0, which is reserved for padding: use "
            "another tokeniser"
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(torch.from_numpy(flat), torch.from_numpy(offsets), torch.tensor(firsts, dtype=torch.int64))


class TokenFiles:
    """Token files for one part: the ids as Arrow, and a second file with the start of each sample.

    Args:
        folder: the part's cache folder.
        part_digest: digest of the part's texts.
        tokeniser: tokeniser for the texts.
        max_length: maximum sample length in tokens.
    """

    def __init__(self, folder: Path, part_digest: str, tokeniser: Tokeniser, max_length: int) -> None:
        self._origin = {
            "format": _FORMAT, "part": part_digest, "tokeniser": tokeniser.digest, "max_length": max_length
        }  # fmt: skip
        key = hashlib.sha256(repr(sorted(self._origin.items())).encode()).hexdigest()[:16]
        self._ids, self._places = folder / f"tokens-{key}.arrow", folder / f"tokens-{key}.safetensors"

    def read(self) -> Tokens | None:
        """Map and verify the tokens. Return None if they are missing or damaged."""
        try:
            places, about = read_tensors(self._places)
            if about != self._origin:
                return None
            total = int(places["offsets"][-1])
            content = map_rows(self._ids, self._origin, shape=(total, _ID_BYTES), dtype="uint8")
        except (FileNotFoundError, StoredFileError):
            return None
        return Tokens(content.view(torch.int32).view(-1), places["offsets"], places["firsts"])

    def write(self, tokens: Tokens) -> None:
        """Write the tokens completely or not at all.

        Raises:
            OSError: the disk is full or refuses the write.
        """
        write_rows(self._ids, tokens.ids.view(-1, 1).view(torch.uint8), self._origin)
        places = {"offsets": tokens.offsets, "firsts": tokens.firsts}
        write_tensors(self._places, places, self._origin)  # written last: it marks the part as complete
