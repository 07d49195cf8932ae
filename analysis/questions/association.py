"""How the sharpness gap goes with accuracy: between configs, within configs over seeds, and given what else varied.

*Between* configs, those with a smaller gap may be better for any reason that a config can have; what the search varied
beside the gap can be held. *Within* a config nothing but the seeds differs: an association there owes nothing to the
config. The two can have opposite signs, so no number here mixes them.

What is independent differs too. Configs of a search each have a seed of their own. Repetitions are paired: configs
share their seeds, and a seed that is kind to one is kind to all, so that within configs it is the seeds that count.

Every association carries the trials that it is of (see `analysis.reading.landmark`, for how early stopping selects no
survivors), and whether it is exploratory or confirmatory. A p-value is of one association: who looks at many corrects
it (`analysis.statistics.estimates.holm`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
from analysis.statistics.estimates import MIN_UNITS, Estimate, expanded_estimate
from analysis.statistics.resampling import (
    Units,
    complete,
    partial_rank_correlations,
    resampled,
    unit_count,
    unit_means,
)

Level = Literal["between", "within"]

PERMUTATIONS: Final = 4000
# With fewer degrees of freedom left a partial correlation is mostly noise of the fit that it is the rest of.
MIN_LEFT: Final = 4
# Three points have a rank correlation of a half or one, whatever they are of.
MIN_CONFIGS: Final = 4


@dataclass(frozen=True)
class Association:
    """A rank correlation of a gap with validation accuracy.

    Args:
        gap: as in `analysis.reading.landmark.GAPS`.
        level: `between` configs (one point a config, its mean over seeds) or `within` configs (a trial's difference
            from its config's mean).
        held: the config's fields that are held; none within a config, where none differs.
        evidence: exploratory or confirmatory, by the stage of its trials.
        estimate: n counts configs.
        note: which trials it is of, at which epoch.
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
    """Every gap with accuracy: between searched configs, between repeated configs, and within those over seeds.

    Between configs thrice: as they are, with the nuisance parameters held, and with all held that the search varied.
    The last is what is left of an association once the config's own fields explain what they can.

    Args:
        records: of a study.
        nuisance: fields to hold; told by their names if not given (`nuisance_fields`).
        seed: of bootstrap and permutations.
    """
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
    """The rank correlation of configs' mean gap and mean accuracy, given their fields.

    The interval is the expanded percentile bootstrap's over configs
    (`analysis.statistics.resampling.expanded_interval`). The p-value is that of permuting accuracy over configs where
    nothing is held; where something is, Student's t with the degrees of freedom that it leaves, as permuted rests would
    not know how much of the configs the fit has used up.

    Args:
        landmark: the trials.
        gap: which.
        held: fields of the config; an association is undefined where they leave fewer than `MIN_LEFT` degrees.
        seed: of bootstrap and permutations.
    """
    trials = landmark.trials
    values = [GAPS[gap](trials), trial_scores(trials)]
    (x, y), first = config_means(values, trials["config_id"].to_pylist())
    estimate = rank_association(x, y, config_columns(trials.take(first), held), seed=seed)
    return Association(gap, "between", tuple(held), landmark.evidence, estimate, landmark.note)


def rank_association(x: Floats, y: Floats, covariates: Floats | None = None, *, seed: int = 0) -> Estimate:
    """The rank correlation of two values of configs given others, as `between_configs` says.

    Args:
        x: (n,), one a config.
        y: (n,).
        covariates: (n, k), what is held; k may be 0, as it is where nothing is given.
        seed: of bootstrap and permutations.
    """
    covariates = np.empty((len(x), 0)) if covariates is None else covariates
    n, k = len(x), covariates.shape[1]
    if n < MIN_CONFIGS or (k and n - 2 - k < MIN_LEFT):
        why = f"{n} configs are too few" + (f" to hold {k} columns" if k else "")
        return Estimate(math.nan, math.nan, math.nan, n, f"rank correlation: undefined, {why}")
    if k:
        name = f"partial rank correlation given {k} column{'s' if k > 1 else ''}"
        columns, units = complete([x, y, *covariates.T])
        return _with_t_test(_correlation(name, columns, units, n - 2 - k, seed), n - 2 - k)
    columns, units = complete([x, y])
    estimate = _correlation("Spearman rank correlation", columns, units, n - 2, seed)
    return _with_permutations(estimate, columns, _orders_within(np.zeros(len(columns), dtype=np.intp), seed))


def within_configs(landmark: Landmark, gap: GapName, *, seed: int = 0) -> Association:
    """The rank correlation of trials' differences from their config's means, over configs with at least two trials.

    Where configs share seeds the estimate's n counts seeds: the interval is the expanded percentile bootstrap's over
    whole seeds, and the p-value that of permuting seeds, for all configs alike, among those that the same configs ran
    on. Where every trial has a seed of its own, n counts configs: the interval is over whole configs, and accuracy is
    permuted among the trials of each. Neither takes more than that seeds are exchangeable.

    Args:
        landmark: the trials.
        gap: which.
        seed: of bootstrap and permutations.
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
    estimate = _correlation(name, columns, units, unit_count(units) - 1, seed, unit=unit)
    orders = _orders_of_seeds(configs, seeds, seed) if shared else _orders_within(configs, seed)
    estimate = _with_permutations(estimate, columns, orders)
    return Association(gap, "within", (), landmark.evidence, estimate, landmark.note)


def _correlation(
    name: str, columns: Floats, units: Units, freedom: int, seed: int, *, unit: str = "configs"
) -> Estimate:
    """The rank correlation of the first two columns (n, k) given the others, with its interval over units."""
    n = unit_count(units)
    value = float(partial_rank_correlations(columns, np.ones((1, len(columns))))[0, 0]) if n else math.nan
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, f"{name}: undefined, an input does not vary")
    if n < MIN_UNITS:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval for fewer than {MIN_UNITS} {unit}")
    draws = resampled(partial_rank_correlations, columns, units, seed)[:, 0]
    return expanded_estimate(name, value, draws, n, freedom)


def _with_permutations(estimate: Estimate, columns: Floats, orders: NDArray[np.intp]) -> Estimate:
    if math.isnan(estimate.value):
        return estimate
    method = f"{estimate.method}; {PERMUTATIONS} seeded permutations"
    return replace(estimate, p_value=_permutation_p(columns[:, 0], columns[:, 1], orders), method=method)


def _with_t_test(estimate: Estimate, freedom: int) -> Estimate:
    if math.isnan(estimate.value):
        return estimate
    rest = max(1 - estimate.value**2, 1e-300)
    p_value = float(2 * stats.t.sf(abs(estimate.value) * math.sqrt(freedom / rest), freedom))
    return replace(estimate, p_value=p_value, method=f"{estimate.method}; t test, {freedom} degrees of freedom")


def _orders_within(strata: Units, seed: int) -> NDArray[np.intp]:
    """Orders (B, n) of n observations that keep each in its stratum, all others equally likely."""
    # Sorting by stratum and then by a random key permutes within each stratum, all draws at once.
    by_stratum = np.argsort(strata, kind="stable")
    keys = np.random.default_rng(seed).random((PERMUTATIONS, len(strata)))
    orders = np.empty(keys.shape, dtype=np.intp)
    orders[:, by_stratum] = by_stratum[np.argsort(strata[by_stratum][None, :] + keys, axis=1)]
    return orders


def _orders_of_seeds(configs: Units, seeds: Units, seed: int) -> NDArray[np.intp]:
    """Orders (B, n) of n trials in which seeds change places, those of the same configs with each other."""
    places = np.full((unit_count(configs), unit_count(seeds)), -1, dtype=np.intp)
    places[configs, seeds] = np.arange(len(configs))
    _, alike = np.unique(places >= 0, axis=1, return_inverse=True)
    return np.asarray(places[configs[None, :], _orders_within(alike.reshape(-1), seed)[:, seeds]])


def _permutation_p(x: Floats, y: Floats, orders: NDArray[np.intp]) -> float:
    """Two-sided p of the rank correlation under these orders (B, n) of y; the observed order counts as one."""
    scores, ranks = stats.rankdata(y), stats.rankdata(x)
    centred = ranks - ranks.mean()
    permuted, observed = scores[orders], abs(float(centred @ scores))
    # Sums that are equal on paper differ in their last bits by the order of addition.
    tolerance = 1e-12 * float(np.abs(centred) @ scores)
    extreme = int(np.count_nonzero(np.abs(permuted @ centred) >= observed - tolerance))
    return (extreme + 1) / (PERMUTATIONS + 1)
