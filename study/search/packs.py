"""Packs of fixed trials: which trials train together.

The default packs trials that no result decides about: random proposals, controls, repetitions of chosen configs and
confirmation. Proposals of a model wait for results, so each of them would lose information by starting earlier.

The size of a pack depends on the plan and the number of workers, not on the load of the machine. A study's packs, and
with them the rounding, are therefore the same in each run.
"""

import math
from dataclasses import dataclass
from typing import Final

from study.plan.plan import StudyPlan
from study.plan.until import STARTUP

MOST_PACKED: Final = 8
_WITHOUT_MODEL: Final = ("random", "qmc")
_RANDOM_FIRST: Final = ("tpe", "gp")


@dataclass(frozen=True)
class Upcoming:
    """Trials to hand out next.

    Args:
        stage: stage of the trials, or `resumed` for trials that have started before.
        begun: number of trials in the stage that have started.
        count: number of trials that can be handed out now, at least one.
        pack: for resumed trials, the identifiers of all trials in the recorded pack; empty without a pack.
        left: for a search, the number of proposals left, including those that depend on results.
        kinds: number of methods. A cohort trains each method as a pack of its own.
    """

    stage: str
    begun: int
    count: int
    pack: tuple[str, ...] = ()
    left: int = 0
    kinds: int = 1


def independent_proposals(plan: StudyPlan) -> int:
    """Return how many of the first proposals depend on no result of this study."""
    if plan.until is not None or plan.scheduler != "none" or plan.warm_start or len(plan.searches) != 1:
        return 0
    if plan.sampler in _WITHOUT_MODEL:
        return plan.trials
    return STARTUP if plan.sampler in _RANDOM_FIRST else 0


def size_of_group(upcoming: Upcoming, *, packed: int, workers: int, given: bool) -> int:
    """Return how many of the upcoming trials one worker should train together.

    The trials of a stage are divided equally among the workers, in as few rounds as possible.

    Args:
        upcoming: the trials.
        packed: largest pack; 1 without packing.
        workers: number of workers.
        given: whether the user asked for packs of this size. Proposals that depend on results are then packed too.
    """
    if upcoming.stage == "resumed":
        return upcoming.count
    if packed == 1:
        return 1
    waiting, largest = upcoming.count, packed * upcoming.kinds
    if given:
        return min(largest, max(waiting, upcoming.left))
    total = upcoming.begun + waiting
    rounds = math.ceil(total / (workers * largest))
    size = math.ceil(total / (workers * rounds))
    return min(waiting, size - upcoming.begun % size)
