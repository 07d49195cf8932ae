"""Record of the weights taken from a checkpoint; imports no torch, because plans store it."""

import shlex
from dataclasses import dataclass
from typing import Final, Literal

WeightsKind = Literal["raw", "ema"]
_NAMES: Final = {"raw": "raw weights", "ema": "EMA weights"}


class CheckpointError(ValueError):
    """Checkpoint cannot be read or does not fit the model; the message gives the remedy."""


@dataclass(frozen=True)
class FoundWeights:
    """Complete set of a network's weights in a file.

    Args:
        kind: `ema` for running weight averages (EMA, SWA), otherwise `raw`.
        place: the weights' key in the file, with outer keys first, joined by dots. Empty for the whole file.
    """

    kind: WeightsKind
    place: str

    def __str__(self) -> str:
        """Describe the weights for display, such as `raw weights under 'model'`."""
        return _NAMES[self.kind] + (f" under {self.place!r}" if self.place else "")


@dataclass(frozen=True)
class TakenWeights(FoundWeights):
    """Weights taken from a file, and the other weights in the file.

    Args:
        others: other fitting sets of weights in the file.
    """

    others: tuple[FoundWeights, ...] = ()

    def __str__(self) -> str:
        """Describe the weights for display, with the flag for selecting another set."""
        others = (f"{other} (--teacher-weights {shlex.quote(self.choice_of(other))})" for other in self.others)
        listed = ", ".join(others)
        return super().__str__() + (f"; the file also has {listed}" if listed else "")

    @property
    def in_passing(self) -> str:
        """Suffix for a sentence about the file: a comma and `str(self)`.

        Empty if the whole file is one raw weight set.
        """
        return "" if self.is_plain and not self.place else f", {self}"

    @property
    def is_plain(self) -> bool:
        """Whether the file contains only these weights, and they are not averages."""
        return self.kind == "raw" and not self.others

    @property
    def choice(self) -> str:
        """Value of `--teacher-weights` for these weights."""
        return self.choice_of(self)

    def choice_of(self, found: FoundWeights) -> str:
        """Return the value of `--teacher-weights` for a set: the kind if unique in the file, otherwise the place."""
        same = [each for each in (self, *self.others) if each.kind == found.kind]
        return found.place if len(same) > 1 else found.kind
