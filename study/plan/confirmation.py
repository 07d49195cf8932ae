"""Request for a confirmation: number of configs, of fresh seeds, and of teachers and splits to divide the seeds over.

With several teachers or splits, seeds are nested in cells. A cell is a split and a teacher trained on it. Every
repetition has a different seed, and repetition r of every config is in cell r modulo the number of cells. An interval
for new teachers depends on the spread between teachers and on the number of runs. Repeating each seed with every
teacher would need more runs for the same interval.
"""

import re
from typing import Any, Final, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from study.plan.methods import BASELINE
from trainables.process.errors import UsageError
from trainables.spec.bounds import MOST_EPOCHS, MOST_SPLITS, MOST_TEACHERS

DEFAULT_CONFIGS: Final = 3
DEFAULT_SEEDS: Final = 10
AUTO: Final = "auto"  # value of --seeds
DEFAULT_MOST_SEEDS: Final = 60
DEFAULT_DETECT: Final = 0.005
FIRST_LOOK: Final = 6  # as in `analysis.statistics.sequential`
_MOST_SEEDS: Final = 10_000
_MOST_CONFIGS: Final = 1_000_000
PUBLISHED: Final = "pesf_kd as published"
ALWAYS_CONFIRMED: Final = ("ce", BASELINE)  # methods in a comparison confirmed regardless of their score


class SeedsAsked(NamedTuple):
    """Number of seeds given on the command line, with the difference to detect if the number is `auto`."""

    seeds: int
    detect: float | None = None

    def __str__(self) -> str:
        return f"{self.seeds}" if self.detect is None else f"up to {self.seeds} (auto, to ±{self.detect:g})"


class Factors(NamedTuple):
    """Numbers of teachers and splits given on the command line; None if not given."""

    teachers: int | None = None
    splits: int | None = None

    @property
    def flags(self) -> str:
        """The options as typed."""
        given = (("--teachers", self.teachers), ("--splits", self.splits))
        return " ".join(f"{flag} {number}" for flag, number in given if number is not None)

    @property
    def is_given(self) -> bool:
        """Whether one of the numbers is given."""
        return self != (None, None)

    def or_else(self, other: "Factors") -> "Factors":
        """Return these numbers. Numbers not given are taken from `other`."""
        return Factors(*(theirs if own is None else own for own, theirs in zip(self, other, strict=True)))


NOT_GIVEN: Final = Factors()


class ConfirmationRequest(BaseModel):
    """Size of a confirmation.

    Args:
        configs: number of best configs. In a comparison, number of methods in addition to `ce` and `kd`.
        seeds: number of fresh seeds per config, at least 2 because one seed gives no interval. With `detect`, the
            maximum number.
        detect: difference in the objective for deciding when seeds stop being added. None for a fixed number of seeds.
        epochs: number of training epochs in the confirmation trials. None for the same number as the other trials.
        teachers: number of teachers to divide the seeds over. With several splits, number per split.
        splits: number of splits into train and validation to divide the seeds over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    configs: int = Field(ge=1, le=_MOST_CONFIGS)
    seeds: int = Field(ge=2, le=_MOST_SEEDS)
    detect: float | None = Field(None, gt=0, lt=1)
    epochs: int | None = Field(None, ge=1, le=MOST_EPOCHS)
    teachers: int = Field(1, ge=1, le=MOST_TEACHERS)
    splits: int = Field(1, ge=1, le=MOST_SPLITS)

    @model_serializer(mode="wrap")
    def _without_none(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not requested, as earlier versions do."""
        values: dict[str, Any] = serialise(self)
        left_out = {"detect": None, "epochs": None, "teachers": 1, "splits": 1}
        return {name: value for name, value in values.items() if name not in left_out or value != left_out[name]}

    @model_validator(mode="after")
    def _check_factors(self) -> Self:
        flags = Factors(*(number if number != 1 else None for number in self.factors)).flags
        if self.cells > self.seeds:
            raise ValueError(
                f"{flags}: the {self.seeds} seeds of each config are divided over {self.cells} "
                f"{'teachers' if self.splits == 1 else 'pairs of split and teacher'}, so give at most {self.seeds} of "
                "them, or more --seeds"
            )
        if self.cells > 1 and self.detect is not None:
            raise ValueError(
                f"{flags} and --seeds {AUTO}: the rule that adds seeds takes repetitions as independent, and "
                "repetitions with the same teacher or split are not; give a number of --seeds, or leave out the others"
            )
        return self

    @property
    def factors(self) -> Factors:
        """Numbers of teachers and splits."""
        return Factors(self.teachers, self.splits)

    @property
    def cells(self) -> int:
        """Number of cells (pairs of a split and a teacher)."""
        return self.teachers * self.splits

    def cell_of(self, place: int) -> tuple[int, int]:
        """Return the teacher number and split number of a repetition or a cell.

        Args:
            place: number of the repetition within the confirmation, from 0. The first repetitions are in the cells in
                order.
        """
        teacher, split = divmod(place % self.cells, self.splits)
        return teacher, split

    @property
    def seeds_per_cell(self) -> tuple[int, ...]:
        """Number of seeds per config and cell."""
        return tuple(len(range(number, self.seeds, self.cells)) for number in range(self.cells))

    @property
    def asked(self) -> SeedsAsked:
        """Number of seeds as given on the command line."""
        return SeedsAsked(self.seeds, self.detect)

    @property
    def seeds_in_words(self) -> str:
        """Number of seeds in words, for example `10` or `6 to 60`."""
        return f"{self.seeds}" if self.detect is None else f"{FIRST_LOOK} to {self.seeds}"


def seeds_asked(seeds: int | str | None, detect: float | None, most: int | None) -> SeedsAsked | None:
    """Return the number of seeds from `--seeds`, `--detect` and `--most-seeds`; None if none is given.

    Raises:
        UsageError: a value is out of bounds, or --detect or --most-seeds is given without --seeds auto.
    """
    if seeds != AUTO:
        for flag, value in (("--detect", detect), ("--most-seeds", most)):
            if value is not None:
                raise UsageError(f"{flag} {value:g} is only for a number of seeds that is found: give --seeds auto too")
        if seeds is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", str(seeds)):
            raise UsageError(f"--seeds {seeds}: give a number, such as {DEFAULT_SEEDS}, or {AUTO}")
        return SeedsAsked(int(seeds))
    detect = DEFAULT_DETECT if detect is None else detect
    if not 0 < detect < 1:
        raise UsageError(
            f"--detect {detect:g}: give a difference between 0 and 1 in the objective's unit, such as 0.005 for half a "
            "point of accuracy"
        )
    most = DEFAULT_MOST_SEEDS if most is None else most
    if not FIRST_LOOK <= most <= _MOST_SEEDS:
        raise UsageError(f"--most-seeds {most}: give a number from {FIRST_LOOK} to {_MOST_SEEDS:,}")
    return SeedsAsked(most, detect)


def request_of(
    configs: int, asked: SeedsAsked, epochs: int | None = None, factors: Factors = NOT_GIVEN
) -> ConfirmationRequest:
    """Return a confirmation request with counts from the command line.

    Args:
        configs: value of --confirm.
        asked: number of seeds.
        epochs: value of --confirm-epochs; None for the same number as the other trials.
        factors: values of --teachers and --splits; None for 1.

    Raises:
        UsageError: a count is out of bounds. The message names the option.
    """
    if not 1 <= configs <= _MOST_CONFIGS:
        raise UsageError(
            f"--confirm {configs}: give a number from 1 to {_MOST_CONFIGS:,}, or leave --confirm out to confirm nothing"
        )
    seeds = asked.seeds
    if not 2 <= seeds <= _MOST_SEEDS:
        why = "one seed gives no interval and no test; " if seeds == 1 else ""
        raise UsageError(f"--seeds {seeds}: {why}give a number from 2 to {_MOST_SEEDS:,}, such as {DEFAULT_SEEDS}")
    if epochs is not None and not 1 <= epochs <= MOST_EPOCHS:
        raise UsageError(f"--confirm-epochs {epochs}: give a number from 1 to {MOST_EPOCHS:,}")
    for flag, number, most in (
        ("--teachers", factors.teachers, MOST_TEACHERS),
        ("--splits", factors.splits, MOST_SPLITS),
    ):
        if number is not None and not 1 <= number <= most:
            raise UsageError(f"{flag} {number}: give a number from 1 to {most:,}, such as 5")
    numbers = {name: number for name, number in factors._asdict().items() if number is not None}
    try:
        return ConfirmationRequest(configs=configs, seeds=seeds, detect=asked.detect, epochs=epochs, **numbers)
    except ValidationError as error:
        raise UsageError(error.errors()[0]["ctx"]["error"].args[0]) from None
