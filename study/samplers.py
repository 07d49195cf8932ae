"""Optuna's samplers by name, seeded anew for every suggestion.

A sampler's random state cannot be written down, and a sampler made again from the study's seed proposes its first
points again. Seeding by (study seed, number of the suggestion) makes a resumed study propose what it would have
proposed, whatever the sampler; what a sampler has learnt, it reads from the trials.
"""

import warnings

import optuna

from study.plan import Sampler
from trainables.trial import derive_seed


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
