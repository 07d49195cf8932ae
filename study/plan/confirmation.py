"""Request for a confirmation: number of configs, of fresh seeds, and of teachers that the seeds are divided over.

With several teachers, seeds are nested in teachers: every repetition has a seed of its own, and repetition r of every
config has teacher r modulo the number of teachers. An interval for new teachers depends on the spread between teachers
and on the number of runs. Repeating each seed with every teacher would take more runs for the same interval.
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
from trainables.spec.bounds import MOST_TEACHERS

DEFAULT_CONFIGS: Final = 3
DEFAULT_SEEDS: Final = 10
AUTO: Final = "auto"  # value of --seeds
DEFAULT_MOST_SEEDS: Final = 60
DEFAULT_DETECT: Final = 0.005
FIRST_LOOK: Final = 6  # as in `analysis.statistics.sequential`
_MOST_SEEDS: Final = 10_000
_MOST_CONFIGS: Final = 1_000_000
PUBLISHED: Final = "pesf_kd as published"
ALWAYS_CONFIRMED: Final = ("ce", BASELINE)  # methods of a comparison confirmed regardless of their score


class SeedsAsked(NamedTuple):
    """Number of seeds given on the command line, with the difference to detect if it is `auto`."""

    seeds: int
    detect: float | None = None

    def __str__(self) -> str:
        return f"{self.seeds}" if self.detect is None else f"up to {self.seeds} (auto, to ±{self.detect:g})"


class ConfirmationRequest(BaseModel):
    """Size of a confirmation.

    Args:
        configs: number of best configs. In a comparison, number of methods in addition to `ce` and `kd`.
        seeds: number of fresh seeds per config, at least 2 because one seed gives no interval. With `detect`, the
            largest number.
        detect: difference of the objective that decides when seeds stop being added. None for a fixed number of seeds.
        teachers: number of teachers that the seeds are divided over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    configs: int = Field(ge=1, le=_MOST_CONFIGS)
    seeds: int = Field(ge=2, le=_MOST_SEEDS)
    detect: float | None = Field(None, gt=0, lt=1)
    teachers: int = Field(1, ge=1, le=MOST_TEACHERS)

    @model_serializer(mode="wrap")
    def _without_none(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a missing difference and a single teacher, as earlier versions do."""
        values: dict[str, Any] = serialise(self)
        left_out = {"detect": None, "teachers": 1}
        return {name: value for name, value in values.items() if name not in left_out or value != left_out[name]}

    @model_validator(mode="after")
    def _check_teachers(self) -> Self:
        if self.teachers > self.seeds:
            raise ValueError(
                f"--teachers {self.teachers}: the {self.seeds} seeds of each config are divided over the teachers, so "
                f"give at most {self.seeds}, or more --seeds"
            )
        if self.teachers > 1 and self.detect is not None:
            raise ValueError(
                f"--teachers {self.teachers} and --seeds {AUTO}: the rule that adds seeds takes repetitions as "
                "independent, and repetitions with the same teacher are not; give a number of --seeds, or leave out "
                "--teachers"
            )
        return self

    @property
    def seeds_per_teacher(self) -> tuple[int, ...]:
        """Number of seeds of each config with each teacher; teacher k has the seeds k, k + `teachers`, ..."""
        return tuple(len(range(number, self.seeds, self.teachers)) for number in range(self.teachers))

    @property
    def asked(self) -> SeedsAsked:
        """Number of seeds as given on the command line."""
        return SeedsAsked(self.seeds, self.detect)

    @property
    def seeds_in_words(self) -> str:
        """Number of seeds, such as `10`, or `6 to 60`."""
        return f"{self.seeds}" if self.detect is None else f"{FIRST_LOOK} to {self.seeds}"


def seeds_asked(seeds: int | str | None, detect: float | None, most: int | None) -> SeedsAsked | None:
    """Return the number of seeds from the values of `--seeds`, `--detect` and `--most-seeds`; None if none is given.

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


def request_of(configs: int, asked: SeedsAsked, teachers: int | None = None) -> ConfirmationRequest:
    """Return a confirmation request with counts from the command line.

    Args:
        configs: value of --confirm.
        asked: number of seeds.
        teachers: value of --teachers; None for one teacher.

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
    if teachers is not None and not 1 <= teachers <= MOST_TEACHERS:
        raise UsageError(f"--teachers {teachers}: give a number from 1 to {MOST_TEACHERS:,}, such as 5")
    try:
        return ConfirmationRequest(configs=configs, seeds=seeds, detect=asked.detect, teachers=teachers or 1)
    except ValidationError as error:
        raise UsageError(error.errors()[0]["ctx"]["error"].args[0]) from None
