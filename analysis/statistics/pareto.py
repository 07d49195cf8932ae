"""Pareto front: the points not dominated by any other point."""

from collections.abc import Sequence


def non_dominated(points: Sequence[Sequence[float]], maximised: Sequence[bool]) -> list[bool]:
    """Return for each point whether no other point is at least as good in all values and better in one.

    Equal points do not dominate each other.

    Args:
        points: finite values of each point.
        maximised: for each value, whether more is better; else less is better.
    """
    signed = [[value if up else -value for value, up in zip(point, maximised, strict=True)] for point in points]
    return [not any(_dominates(other, point) for other in signed) for point in signed]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))
