"""Tokenised texts: rows of different lengths in one array, stored as Arrow, mapped by every process of a machine."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.data.sources import DataError
from trainables.data.text.tokeniser import Tokeniser
from trainables.storage.rows import map_rows, write_rows
from trainables.storage.tensors import StoredFileError, read_tensors, write_tensors

PADDED_TO: Final = 8
_CHUNK: Final = 8192
_ID_BYTES: Final = 4
_FORMAT: Final = 1  # another one means that tokenising changed


class Tokens(NamedTuple):
    """The tokens of N samples.

    Args:
        ids: (T,) int32, of all samples one behind the other, without padding; 0 is not among them.
        offsets: (N + 1,) int64, where each sample begins, and T.
        firsts: (N,) int64, how many of a sample's tokens belong to its first text, the special ones before and behind
            it included: the rest is of segment 1.
    """

    ids: Tensor
    offsets: Tensor
    firsts: Tensor

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, tokens of each sample."""
        return self.offsets.diff()

    def to(self, device: torch.device) -> "Tokens":
        """The same on a device."""
        return Tokens(*(each.to(device) for each in self))

    def batch(self, rows: Tensor, *, length: int | None = None) -> Tensor:
        """Some samples as a network takes them.

        Args:
            rows: (B,) int64, which.
            length: L; if not given, that of the longest of them, rounded up to a multiple of 8.

        Returns:
            (B, 2, L) int32: ids with 0 behind the last token, and segments.
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
    """To how many tokens a batch is padded whose longest sample has so many."""
    return -(-longest // PADDED_TO) * PADDED_TO


def tokenise(tokeniser: Tokeniser, texts: Sequence[list[str]], *, max_length: int) -> Tokens:
    """Texts, or pairs of texts, as tokens; what is longer is cut, of a pair the longer text first.

    Args:
        tokeniser: gives ids and puts special tokens around and between.
        texts: N first texts, and for pairs N second ones.
        max_length: of a sample in tokens, special ones included.

    Raises:
        DataError: the tokeniser gives a text the id of padding.
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
        raise DataError(f"the tokeniser gives sample {sample + 1} the id 0, which is padding: it cannot be used")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(torch.from_numpy(flat), torch.from_numpy(offsets), torch.tensor(firsts, dtype=torch.int64))


class TokenFiles:
    """The files of one part's tokens: ids as Arrow, and beside them where each sample begins.

    Args:
        folder: of the part.
        part_digest: of its texts.
        tokeniser: what tokenised them.
        max_length: to which they were cut.
    """

    def __init__(self, folder: Path, part_digest: str, tokeniser: Tokeniser, max_length: int) -> None:
        self._origin = {
            "format": _FORMAT, "part": part_digest, "tokeniser": tokeniser.digest, "max_length": max_length
        }  # fmt: skip
        key = hashlib.sha256(repr(sorted(self._origin.items())).encode()).hexdigest()[:16]
        self._ids, self._places = folder / f"tokens-{key}.arrow", folder / f"tokens-{key}.safetensors"

    def read(self) -> Tokens | None:
        """The tokens, mapped and verified; None if they are not there, or damaged."""
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
        """Keep tokens, whole or not at all.

        Raises:
            OSError: the disk is full or refuses.
        """
        write_rows(self._ids, tokens.ids.view(-1, 1).view(torch.uint8), self._origin)
        places = {"offsets": tokens.offsets, "firsts": tokens.firsts}
        write_tensors(self._places, places, self._origin)  # last: with it the part is complete
