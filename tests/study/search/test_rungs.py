"""ASHA's rungs make the same decisions as Ray Tune's independent implementation."""

import math
import random

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from study.ledger.ledger import StudyLedger
from study.search.rungs import Rungs
from tests.study.factories import make_plan


class Named:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


@pytest.mark.parametrize("seed", range(20))
def test_every_decision_is_that_of_ray_tune(tmp_path, seed):
    chance = random.Random(seed)
    epochs = chance.choice([1, 2, 3, 8, 9, 26, 30])
    rungs = Rungs(StudyLedger(make_plan(tmp_path, base={"epochs": epochs}, scheduler="asha")))
    theirs = _Bracket(1, epochs, 3, 0, stop_last_trials=False)
    assert list(rungs.scores) == [milestone for milestone, _ in theirs._rungs]
    running = {f"t{number}": 0 for number in range(30)}
    decisions = []
    while running:
        trial = chance.choice(list(running))
        running[trial] = min(epochs, running[trial] + chance.choice([1, 1, 1, 4]))  # some reports skip epochs
        score = math.nan if chance.random() < 0.05 else chance.choice([chance.random(), 0.5])
        continues = rungs.enter(trial, running[trial], score)
        decisions.append((continues, theirs.on_result(Named(trial), running[trial], score) == "CONTINUE"))
        if not continues or running[trial] == epochs:
            del running[trial]
    assert {ours == rays for ours, rays in decisions} == {True}
    assert epochs == 1 or {ours for ours, _ in decisions} == {True, False}


def test_a_third_goes_on():
    """By hand: of nine scores in ascending order, each is the best so far. In descending order, one continues."""

    def survivors(scores):
        rungs = Rungs.__new__(Rungs)
        rungs.scores = {1: {}}
        return [score for number, score in enumerate(scores) if rungs.enter(str(number), 1, score)]

    assert survivors([1, 2, 3, 4, 5, 6, 7, 8, 9]) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert survivors([9, 8, 7, 6, 5, 4, 3, 2, 1]) == [9]
    # The 2/3 quantile of 1, 3, 2 is 2 + 1/3.
    assert survivors([1, 3, 2, 2.3]) == [1, 3]
    assert survivors([1, 3, 2, 2.4]) == [1, 3, 2.4]
