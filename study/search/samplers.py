"""Optuna's samplers by name, seeded anew for every suggestion.

A sampler's random state cannot be written down, and a sampler made again from the study's seed proposes its first
points again. Seeding by (study seed, number of the suggestion) makes a resumed study propose what it would have
proposed, whatever the sampler; what a sampler has learnt, it reads from the trials.

How Optuna 5's samplers treat a trial that ASHA stopped, which is PRUNED in Optuna's terms:

| sampler | PRUNED trials | what the sampler gets here |
| --- | --- | --- |
| random | are ignored, as all results are | PRUNED |
| qmc | count as points of the sequence | PRUNED |
| tpe | rank below every finished trial, later rungs first, then by value | PRUNED |
| gp | are ignored, and do not count towards its 10 random points | COMPLETE, with the value at the last rung |
| cmaes | are ignored, and do not count towards a generation | COMPLETE, with the value at the last rung |
| nsga2 | are ignored, and do not count towards a generation | COMPLETE, with the value at the last rung |

ASHA stops most trials before one finishes, so gp and nsga2 would propose random search's configs, and cmaes would learn
from survivors alone. The price of COMPLETE is a bias: a stopped trial has its value at an earlier epoch than a finished
one, which is lower than its value at the end would be. It was stopped for being in the lower part of its rung, so its
rank below the survivors is right; how far it lies below them is exaggerated. nsga2 and cmaes read ranks alone, gp reads
the distances. CMA-ES has an option for pruned trials (`consider_pruned_trials`), but as long as no trial has finished
it finds no search space. The journal, the records and the mirror call such a trial pruned, whatever the sampler.

A failed trial is FAIL for every sampler and counts for nothing: the search learns from the other trials, and neither a
generation nor the random points of gp get shorter by it.
"""

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import optuna
from optuna.trial import TrialState

from study.plan.notes import IGNORE_PRUNED
from study.plan.plan import Sampler
from trainables.spec.trial import derive_seed

if TYPE_CHECKING:
    from study.ledger.ledger import Status

_STATES: Final = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def make_sampler(name: Sampler, *, study_seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for suggestion `number` (from 0) of a study."""
    seed = derive_seed(study_seed, "sampler", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                # constant_liar: running trials count as poor ones, so that parallel suggestions do not crowd.
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "qmc":
                # The sequence is scrambled once a study; its index is kept with the study, not with the sampler.
                return optuna.samplers.QMCSampler(
                    seed=derive_seed(study_seed, "sampler") % 2**32,
                    scramble=True,
                    warn_independent_sampling=False,
                )
            case "gp":
                return optuna.samplers.GPSampler(seed=seed)
            case "cmaes":
                return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=12)


def sampler_outcome(sampler: Sampler, status: "Status", scores: Mapping[int, float]) -> tuple[TrialState, float | None]:
    """State and value with which a sampler gets a trial that ended; see the table above.

    Args:
        sampler: of the study.
        status: how the trial ended.
        scores: the objective by epoch, where it is a number.

    Returns:
        The state and, unless it is FAIL, the objective at the last epoch that has one. A trial without such an epoch
        is FAIL if it finished.
    """
    last = scores[max(scores)] if scores else math.nan
    if status == "failed" or (status == "finished" and not scores):
        return TrialState.FAIL, None
    if status == "pruned" and not scores:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE if sampler in IGNORE_PRUNED else _STATES[status], last
