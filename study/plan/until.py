"""Rule for ending a search early: `--until no-gain`.

The search ends when `PATIENCE` ended trials have not surpassed the best one. The first `STARTUP` proposals are random
and contain no information about later, model-based proposals. Therefore at least `STARTUP + PATIENCE` trials end. The
rule is the same as `BestValueStagnationEvaluator` in Optuna, which deprecates the terminator in version 5 and removes
it in version 6. It is computed from the study's journal alone, so a resumed study stops where an uninterrupted one
does.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

Until = Literal["no-gain"]

# First suggestions by tpe and gp, which are random.
STARTUP: Final = 10
PATIENCE: Final = 10
LEAST: Final = STARTUP + PATIENCE
RULE: Final = f"when {PATIENCE} trials in a row have not surpassed the best one, after at least {LEAST} trials"


class EndingPlan(Protocol):
    """Study plan with the attributes needed here; implemented by `study.plan.plan.StudyPlan`."""

    @property
    def space(self) -> str:
        """Space name."""

    @property
    def trials(self) -> int:
        """Number of trials per search."""

    @property
    def compared(self) -> Sequence[object]:
        """Compared methods."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of several objectives; empty for one."""

    @property
    def searches(self) -> Sequence[object]:
        """The study's searches."""

    @property
    def until(self) -> Until | None:
        """Rule for ending the search early."""


def check_until(plan: EndingPlan) -> None:
    """Check that the search can end early.

    Raises:
        ValueError: it cannot. The message names the option.
    """
    if plan.until is None:
        return
    flag = f"--until {plan.until}"
    if not plan.searches:
        raise ValueError(f"{flag} ends a search, and space {plan.space!r} searches nothing: leave it out")
    if plan.compared:
        raise ValueError(f"{flag}: the searches of all methods of space {plan.space!r} are equally long: leave it out")
    if plan.objectives:
        raise ValueError(f"{flag} needs one best value, and several objectives have none: leave out one of the two")
    if plan.trials <= LEAST:
        raise ValueError(f"{flag} ends a search after {LEAST} trials at the earliest: raise --trials above {LEAST}")
