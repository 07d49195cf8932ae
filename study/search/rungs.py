"""Early stopping by asynchronous successive halving (ASHA), for every executor.

A rung is a number of epochs for comparing trials: 1, 3, 9, ... At a rung, a trial continues if the score is at least
the quantile 1 - 1/3 of the scores recorded there before. The first trial at a rung continues. A trial is compared at
most once per rung. If reports skip rungs, the trial is compared only at the highest reached rung.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. As in Ray Tune, trials are
stopped, not paused and promoted later.
"""

import math
from typing import Final

import numpy as np

from study.ledger.ledger import StudyLedger

REDUCTION: Final = 3


class Rungs:
    """Rungs for a study's search, rebuilt from the ledger.

    Only search trials may enter. Controls and replicates are always trained to the end. Their means are reported, and a
    mean over only the surviving trials would be biased upwards.

    Args:
        ledger: study ledger.

    Attributes:
        scores: scores by trial identifier, for each rung, from the highest rung to the lowest.
    """

    def __init__(self, ledger: StudyLedger) -> None:
        self.scores: dict[int, dict[str, float]] = {epochs: {} for epochs in _epochs_of_rungs(ledger.plan.base.epochs)}
        for entry in ledger.in_stage("search"):
            for epoch, score in entry.scores.items():
                self.enter(entry.trial_id, epoch, score)

    def enter(self, trial_id: str, epoch: int, score: float) -> bool:
        """Record a trial's score at the highest rung reached. Return whether the trial should continue.

        A trial with score NaN continues, and does not count for others.
        """
        for epochs, scores in self.scores.items():
            if epoch < epochs:
                continue
            if trial_id in scores:
                return True
            known = [other for other in scores.values() if not math.isnan(other)]
            scores[trial_id] = score
            return not known or not score < np.percentile(known, 100 * (1 - 1 / REDUCTION))
        return True


def _epochs_of_rungs(epochs: int) -> list[int]:
    """Return the numbers of epochs of all rungs, in descending order."""
    rungs = [1]
    while rungs[0] * REDUCTION <= epochs:
        rungs.insert(0, rungs[0] * REDUCTION)
    return rungs
