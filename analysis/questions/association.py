"""Correlate the sharpness gap with accuracy, between configs and within configs over seeds.

*Between* configs, any property of a config can cause an association. Other searched parameters can be held. *Within* a
config only the seeds differ, so the config does not cause an association there. The two associations can have opposite
signs, so no number here mixes them.

The independent units differ as well. In a search, each config has a separate seed, so configs are independent.
Repetitions are paired: configs share seeds, and a good seed for one config is good for all. Within configs, seeds are
therefore the independent units.

Every association names the trials and is marked exploratory or confirmatory. `analysis.reading.landmark` describes how
early-stopped trials are kept, so there is no selection of survivors. Each p-value is for a single association; correct
several p-values with `analysis.statistics.estimates.holm`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.reading.landmark import (
    GAPS,
    Evidence,
    Floats,
    GapName,
    Landmark,
    at_landmark,
    config_columns,
    config_means,
    nuisance_fields,
)
from analysis.reading.trials import StudyRecords, trial_scores, varied_fields
from analysis.statistics import ranks
from analysis.statistics.correlation import calibrated_estimate, rank_correlation
from analysis.statistics.estimates import Estimate
from analysis.statistics.ranks import t_test
from analysis.statistics.resampling import Units, complete, partial_rank_correlations, unit_count, unit_means

Level = Literal["between", "within"]

# With fewer residual degrees of freedom, a partial correlation is mostly noise from the fit on the covariates.
MIN_LEFT: Final = 4
# Without ties, any three points have a rank correlation of ±0.5 or ±1.
MIN_CONFIGS: Final = 4


@dataclass(frozen=True)
class Association:
    """Rank correlation between a gap and validation accuracy.

    Args:
        gap: gap name in `analysis.reading.landmark.GAPS`.
        level: `between` configs (one point per config, the mean over seeds) or `within` configs (the deviation from the
            config mean for each trial).
        held: held config fields; empty within configs, where no field differs.
        evidence: exploratory or confirmatory, by the trial stage.
        estimate: rank correlation. n counts configs, or seeds within configs with shared seeds.
        note: names the trials and the epoch.
    """

    gap: GapName
    level: Level
    held: tuple[str, ...]
    evidence: Evidence
    estimate: Estimate
    note: str


def gap_associations(
    records: StudyRecords, *, nuisance: Sequence[str] | None = None, seed: int = 0
) -> list[Association]:
    """Correlate every gap with accuracy between searched configs, between repeated ones and within repeated ones."""
    varied = varied_fields(records.trials)
    held = tuple(nuisance_fields(records.trials) if nuisance is None else nuisance)
    found = []
    for searched in (True, False):
        landmark = at_landmark(records, searched=searched)
        if not landmark.trials.num_rows:
            continue
        for gap in GAPS:
            for fields in dict.fromkeys(((), held, varied)):
                found.append(between_configs(landmark, gap, held=fields, seed=seed))
            if not searched:
                found.append(within_configs(landmark, gap, seed=seed))
    return found


def between_configs(landmark: Landmark, gap: GapName, *, held: Sequence[str] = (), seed: int = 0) -> Association:
    """Rank-correlate the mean gap with the mean accuracy over configs, with config fields held.

    If no field is held, the p-value comes from permuting accuracy over configs. If fields are held, it is Student's t
    with the remaining degrees of freedom: permuted residuals ignore the degrees of freedom used by the fit.
    The interval excludes 0 if and only if this test rejects; `analysis.statistics.ranks` shows coverage and power.

    Args:
        landmark: trials at the landmark.
        gap: gap name.
        held: config fields; the association is undefined if they leave fewer than `MIN_LEFT` degrees of freedom.
        seed: random seed for the permutations.
    """
    trials = landmark.trials
    values = [GAPS[gap](trials), trial_scores(trials)]
    (x, y), first = config_means(values, trials["config_id"].to_pylist())
    estimate = rank_association(x, y, config_columns(trials.take(first), held, landmark.log_fields), seed=seed)
    return Association(gap, "between", tuple(held), landmark.evidence, estimate, landmark.note)


def rank_association(x: Floats, y: Floats, covariates: Floats | None = None, *, seed: int = 0) -> Estimate:
    """Rank-correlate two values over configs given covariates, with interval and p-value as in `between_configs`.

    Args:
        x: (n,), one value per config.
        y: (n,).
        covariates: (n, k), values to hold; k may be 0. Default: none.
        seed: random seed for the permutations.
    """
    covariates = np.empty((len(x), 0)) if covariates is None else covariates
    n, k = len(x), covariates.shape[1]
    if n < MIN_CONFIGS or (k and n - 2 - k < MIN_LEFT):
        why = f"{n} configs are too few" + (f" to hold {k} columns" if k else "")
        return Estimate(math.nan, math.nan, math.nan, n, f"rank correlation: undefined, {why}")
    if k:
        columns, _ = complete([x, y, *covariates.T])
        value = float(partial_rank_correlations(columns, np.ones((1, len(columns))))[0, 0])
        name = f"partial rank correlation given {k} column{'s' if k > 1 else ''}"
        return calibrated_estimate(name, value, t_test(value, n - 2 - k), n, unit="configs")
    return rank_correlation(x, y, seed=seed)


def within_configs(landmark: Landmark, gap: GapName, *, seed: int = 0) -> Association:
    """Rank-correlate the deviations of trials from their config means, over configs with at least two trials.

    If configs share seeds, n counts seeds. The p-value then comes from permuting seeds in all configs at once, among
    seeds with the same set of configs. If every trial has a separate seed, n counts configs, and accuracy is permuted
    among the trials of each config. Both assume only that seeds are exchangeable. The interval excludes 0 if and only
    if the test rejects. It covers the correlation within these configs on other seeds, not within other configs.

    Args:
        landmark: trials at the landmark.
        gap: gap name.
        seed: random seed for the permutations.
    """
    trials = landmark.trials
    values = [GAPS[gap](trials), trial_scores(trials)]
    columns, configs = complete(values, trials["config_id"].to_pylist())
    _, seeds = complete(values, trials["seed"].to_pylist())
    repeated = np.bincount(configs)[configs] > 1 if len(configs) else np.empty(0, dtype=bool)
    columns = columns[repeated]
    configs, seeds = (np.unique(each[repeated], return_inverse=True)[1] for each in (configs, seeds))
    columns = np.column_stack([column - unit_means(column, configs) for column in columns.T])
    name = f"Spearman rank correlation within configs, of {len(columns)} trials' differences from their configs' means"
    shared = unit_count(seeds) < len(seeds)
    units, unit = (seeds, "seeds") if shared else (configs, "configs")
    name += f", {unit_count(units)} seeds that configs share" if shared else ""
    value = float(partial_rank_correlations(columns, np.ones((1, len(columns))))[0, 0]) if len(columns) else math.nan
    test = None
    if math.isfinite(value):
        orders = _orders_of_seeds(configs, seeds, seed) if shared else _orders_within(configs, seed)
        test = ranks.permutation_test(columns[:, 0], columns[:, 1], orders)
    estimate = calibrated_estimate(name, value, test, unit_count(units), rows=len(columns), unit=unit)
    return Association(gap, "within", (), landmark.evidence, estimate, landmark.note)


def _orders_within(strata: Units, seed: int) -> NDArray[np.intp]:
    """Draw orders (B, n) for n observations, permuted uniformly within each stratum."""
    # Sorting by stratum and then by a random key permutes within each stratum, for all draws at once.
    by_stratum = np.argsort(strata, kind="stable")
    keys = np.random.default_rng(seed).random((ranks.PERMUTATIONS, len(strata)))
    orders = np.empty(keys.shape, dtype=np.intp)
    orders[:, by_stratum] = by_stratum[np.argsort(strata[by_stratum][None, :] + keys, axis=1)]
    return orders


def _orders_of_seeds(configs: Units, seeds: Units, seed: int) -> NDArray[np.intp]:
    """Draw orders (B, n) for n trials that permute whole seeds, among seeds with the same set of configs."""
    places = np.full((unit_count(configs), unit_count(seeds)), -1, dtype=np.intp)
    places[configs, seeds] = np.arange(len(configs))
    _, alike = np.unique(places >= 0, axis=1, return_inverse=True)
    return np.asarray(places[configs[None, :], _orders_within(alike.reshape(-1), seed)[:, seeds]])
