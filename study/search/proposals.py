"""Points proposed by a search instead of the sampler."""

from typing import Any

from study.plan.beliefs import believed_point, drawn_point
from study.plan.methods import Search
from study.plan.plan import StudyPlan
from trainables.spec.bounds import SEEDS
from trainables.spec.trial import derive_seed


def proposed_point(plan: StudyPlan, search: Search, number: int, seed: int) -> dict[str, Any] | None:
    """Return the fields fixed by a proposal, or None if the sampler chooses all fields.

    Args:
        plan: study plan.
        search: proposing search.
        number: proposal number within the search, from 0.
        seed: seed of the search.
    """
    believed = believed_point(plan, search)
    first = search.first or {}
    points = [first] if first else []
    if believed and not believed.items() <= first.items():
        points.append(believed)
    points += [dict(point) for each in plan.warm_start for point in each.first]
    if number < len(points):
        return points[number]
    if not believed:
        return None
    draws = [derive_seed(seed, "prior", number, part) / SEEDS for part in range(len(plan.prior) + 1)]
    return drawn_point(plan, search, number, draws)
