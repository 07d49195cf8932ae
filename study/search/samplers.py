"""Optuna samplers by name, seeded again for every suggestion.

A sampler's random state cannot be saved, and a sampler created again from the study seed would repeat the first points.
Seeding by (study seed, suggestion number) makes a resumed study propose the same configs as an uninterrupted one, with
any sampler. Samplers read all earlier results from the trials.

Trials stopped by ASHA are PRUNED in Optuna's terms. The samplers of Optuna 5 treat these trials as follows:

| sampler | PRUNED trials | state reported here |
| --- | --- | --- |
| random | ignored, like all results | PRUNED |
| qmc | counted as points of the sequence | PRUNED |
| tpe | ranked below every finished trial, later rungs first, then by value | PRUNED |
| gp | ignored, and not counted towards the 10 random points | COMPLETE, with the value at the last rung |
| cmaes | ignored, and not counted towards a generation | COMPLETE, with the value at the last rung |
| nsga2 | ignored, and not counted towards a generation | COMPLETE, with the value at the last rung |

ASHA stops most trials before one finishes. With PRUNED trials, gp and nsga2 would propose random configs, and cmaes
would learn only from survivors. Reporting COMPLETE adds a bias: a stopped trial's value comes from an early epoch and
is lower than a final value would be. The trial was stopped in a rung's lower part, so a rank below the survivors is
correct, but the distance to them is exaggerated. nsga2 and cmaes use only ranks. gp uses distances. CMA-ES has an
option for pruned trials (`consider_pruned_trials`), but finds no search space until a trial has finished. In the
journal, the records and the mirror, these trials are called pruned for every sampler.

With several objectives or limits, only tpe and nsga2 are allowed, no trial is stopped early, and a finished trial is
reported with all values and constraints (see `study.search.objectives`).

A failed trial is reported as FAIL to every sampler. All samplers ignore FAIL. Failed trials do not count towards a
generation.

The first `STARTUP` suggestions of tpe and gp are random, and all later ones come from their model. The suggestion
number decides, not the number of finished trials. Searches with the same number of trials therefore have the same
number of suggestions by a model, even if one method's trials fail.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from study.plan.notes import IGNORE_PRUNED
from study.plan.plan import Sampler
from study.plan.until import STARTUP
from trainables.spec.trial import derive_seed

if TYPE_CHECKING:
    from study.ledger.entry import Status

_STATES: Final = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def make_sampler(
    name: Sampler, *, study_seed: int, number: int, earlier: Sequence[FrozenTrial] = ()
) -> optuna.samplers.BaseSampler:
    """Return the sampler for one suggestion.

    Args:
        name: name of the sampler.
        study_seed: seed of the study.
        number: suggestion number, from 0.
        earlier: finished trials of other studies, from which CMA-ES starts (Nomura et al., Warm Starting CMA-ES for
            Hyperparameter Optimization, AAAI 2021). Other samplers read them from the Optuna study.
    """
    seed = derive_seed(study_seed, "sampler", number) % 2**32
    startup = STARTUP if number < STARTUP else 1  # a model needs one finished trial
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                # constant_liar treats running trials as poor ones, so parallel suggestions spread out.
                return optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
                )
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "qmc":
                # The sequence is scrambled once per study. Optuna keeps the index in the study, not in the sampler.
                return optuna.samplers.QMCSampler(
                    seed=derive_seed(study_seed, "sampler") % 2**32,
                    scramble=True,
                    warn_independent_sampling=False,
                )
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
            case "cmaes":
                return optuna.samplers.CmaEsSampler(
                    seed=seed, warn_independent_sampling=False, source_trials=[*earlier] or None
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=12)


def sampler_outcome(sampler: Sampler, status: "Status", scores: Mapping[int, float]) -> tuple[TrialState, float | None]:
    """Return an ended trial's state and value as reported to a sampler. See the table above.

    Args:
        sampler: the study's sampler.
        status: the trial's final status.
        scores: finite objective values by epoch.

    Returns:
        The state, and the objective at the last epoch with a value. The value is None for FAIL and for a pruned trial
        without a value. A finished trial without a value is FAIL.
    """
    last = scores[max(scores)] if scores else math.nan
    if status == "failed" or (status == "finished" and not scores):
        return TrialState.FAIL, None
    if status == "pruned" and not scores:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE if sampler in IGNORE_PRUNED else _STATES[status], last
