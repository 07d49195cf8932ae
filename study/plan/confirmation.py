"""Request for a confirmation: number of configs and number of fresh seeds."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from study.plan.methods import BASELINE
from trainables.process.errors import UsageError

DEFAULT_CONFIGS: Final = 3
DEFAULT_SEEDS: Final = 10
_MOST_SEEDS: Final = 10_000
_MOST_CONFIGS: Final = 1_000_000
PUBLISHED: Final = "pesf_kd as published"
ALWAYS_CONFIRMED: Final = ("ce", BASELINE)  # methods of a comparison confirmed regardless of their score


class ConfirmationRequest(BaseModel):
    """Size of a confirmation.

    Args:
        configs: number of best configs. In a comparison, number of methods in addition to `ce` and `kd`.
        seeds: number of fresh seeds per config, at least 2 because one seed gives no interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    configs: int = Field(ge=1, le=_MOST_CONFIGS)
    seeds: int = Field(ge=2, le=_MOST_SEEDS)


def request_of(configs: int, seeds: int) -> ConfirmationRequest:
    """Return a confirmation request with counts from the command line.

    Raises:
        UsageError: a count is out of bounds. The message names the option.
    """
    if not 1 <= configs <= _MOST_CONFIGS:
        raise UsageError(
            f"--confirm {configs}: give a number from 1 to {_MOST_CONFIGS:,}, or leave --confirm out to confirm nothing"
        )
    if not 2 <= seeds <= _MOST_SEEDS:
        why = "one seed gives no interval and no test; " if seeds == 1 else ""
        raise UsageError(f"--seeds {seeds}: {why}give a number from 2 to {_MOST_SEEDS:,}, such as {DEFAULT_SEEDS}")
    return ConfirmationRequest(configs=configs, seeds=seeds)
