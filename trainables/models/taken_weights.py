"""Which weights of a checkpoint were taken. It imports no torch: a plan keeps this."""

import shlex
from dataclasses import dataclass
from typing import Final, Literal

WeightsKind = Literal["raw", "ema"]
_NAMES: Final = {"raw": "raw weights", "ema": "EMA weights"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the model; the message explains how to proceed."""


@dataclass(frozen=True)
class FoundWeights:
    """One complete set of a network's weights in a file.

    Args:
        kind: `ema` for running averages of the weights (EMA, SWA), otherwise `raw`.
        place: key under which the file keeps them, outer keys first, joined by dots; empty for the whole file.
    """

    kind: WeightsKind
    place: str

    def __str__(self) -> str:
        """For a person, such as `raw weights under 'model'`."""
        return _NAMES[self.kind] + (f" under {self.place!r}" if self.place else "")


@dataclass(frozen=True)
class TakenWeights(FoundWeights):
    """The weights that were taken from a file, and those that were not.

    Args:
        others: further sets in the file that fit the network as well.
    """

    others: tuple[FoundWeights, ...] = ()

    def __str__(self) -> str:
        """For a person, with the flag that takes another set."""
        others = (f"{other} (--teacher-weights {shlex.quote(self.choice_of(other))})" for other in self.others)
        listed = ", ".join(others)
        return super().__str__() + (f"; the file also has {listed}" if listed else "")

    @property
    def in_passing(self) -> str:
        """For a sentence about the file: a comma and `str(self)`, or nothing where the file is these weights alone."""
        return "" if self.is_plain and not self.place else f", {self}"

    @property
    def is_plain(self) -> bool:
        """Whether the file has these weights alone, and they are no averages."""
        return self.kind == "raw" and not self.others

    @property
    def choice(self) -> str:
        """Value of `--teacher-weights` that takes these weights."""
        return self.choice_of(self)

    def choice_of(self, found: FoundWeights) -> str:
        """Value of `--teacher-weights` that takes one of the file's sets: its kind if that is unique, or its place."""
        same = [each for each in (self, *self.others) if each.kind == found.kind]
        return found.place if len(same) > 1 else found.kind
