"""Pareto front, compared with its definition on random points."""

import numpy as np
import pytest

from analysis.statistics.pareto import non_dominated

pytestmark = pytest.mark.unit


def reference(points, maximised):
    """Return the front by an independent definition: no point lies in the quadrant of better points."""
    signs = np.where(maximised, 1.0, -1.0)
    values = np.asarray(points, dtype=np.float64) * signs
    return [
        not ((values >= value).all(axis=1) & (values > value).any(axis=1)).any() for value in values
    ]  # fmt: skip


@pytest.mark.parametrize("directions", [(True, False), (True, True), (False, False), (True, False, False)])
def test_the_front_is_that_of_the_definition(directions):
    random = np.random.default_rng(len(directions))
    for _ in range(40):
        points = random.integers(0, 5, (random.integers(1, 30), len(directions))).tolist()
        assert non_dominated(points, directions) == reference(points, directions)


def test_equal_points_are_both_on_the_front_and_one_objective_has_its_best():
    assert non_dominated([(0.9, 2.0), (0.9, 2.0), (0.8, 2.0)], (True, False)) == [True, True, False]
    assert non_dominated([(1.0,), (3.0,), (3.0,)], (True,)) == [False, True, True]
    assert non_dominated([], (True, False)) == []
