"""How the sharpness gap goes with accuracy: between configs, within configs over seeds, and given what else varied.

*Between* configs, those with a smaller gap may be better for any reason that a config can have; what the search varied
beside the gap can be held. *Within* a config nothing but the seeds differs: an association there owes nothing to the
config. The two can have opposite signs, so no number here mixes them.

Every association carries the trials that it is of (see `analysis.landmark`, for how early stopping selects no
survivors), and whether it is exploratory or confirmatory. A p-value is of one association: who looks at many corrects
it (`analysis.statistics.holm`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from scipy import stats

from analysis.landmark import (
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
from analysis.resampling import (
    Units,
    complete,
    partial_rank_correlations,
    resampled,
    unit_count,
    unit_means,
)
from analysis.statistics import MIN_UNITS, Estimate, expanded_estimate
from analysis.trials import StudyRecords, trial_scores, varied_fields

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
        gap: as in `analysis.landmark.GAPS`.
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

    The interval is the expanded percentile bootstrap's over configs (`analysis.resampling.expanded_interval`). The
    p-value is that of permuting accuracy over configs where nothing is held; where something is, Student's t with the
    degrees of freedom that it leaves, as permuted rests would not know how much of the configs the fit has used up.

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


def rank_association(x: Floats, y: Floats, covariates: Floats, *, seed: int = 0) -> Estimate:
    """The rank correlation of two values of configs given others, as `between_configs` says.

    Args:
        x: (n,), one a config.
        y: (n,).
        covariates: (n, k), what is held; k may be 0.
        seed: of bootstrap and permutations.
    """
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
    return _with_permutations(estimate, columns, np.zeros(n, dtype=np.intp), seed)


def within_configs(landmark: Landmark, gap: GapName, *, seed: int = 0) -> Association:
    """The rank correlation of trials' differences from their config's means, over configs with at least two trials.

    The interval is the expanded percentile bootstrap's over whole configs; the p-value that of permuting accuracy among
    the trials of each config, which takes no more than that seeds are exchangeable within a config.

    Args:
        landmark: the trials.
        gap: which.
        seed: of bootstrap and permutations.
    """
    trials = landmark.trials
    columns, units = complete([GAPS[gap](trials), trial_scores(trials)], trials["config_id"].to_pylist())
    repeated = np.bincount(units)[units] > 1 if len(units) else np.empty(0, dtype=bool)
    columns, units = columns[repeated], np.unique(units[repeated], return_inverse=True)[1]
    columns = np.column_stack([column - unit_means(column, units) for column in columns.T])
    name = f"Spearman rank correlation within configs, of {len(columns)} trials' differences from their configs' means"
    estimate = _correlation(name, columns, units, unit_count(units) - 1, seed)
    estimate = _with_permutations(estimate, columns, units, seed)
    return Association(gap, "within", (), landmark.evidence, estimate, landmark.note)


def _correlation(name: str, columns: Floats, units: Units, freedom: int, seed: int) -> Estimate:
    """The rank correlation of the first two columns (n, k) given the others, with its interval over units."""
    n = unit_count(units)
    value = float(partial_rank_correlations(columns, np.ones((1, len(columns))))[0, 0]) if n else math.nan
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, f"{name}: undefined, an input does not vary")
    if n < MIN_UNITS:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval for fewer than {MIN_UNITS} configs")
    draws = resampled(partial_rank_correlations, columns, units, seed)[:, 0]
    return expanded_estimate(name, value, draws, n, freedom)


def _with_permutations(estimate: Estimate, columns: Floats, strata: Units, seed: int) -> Estimate:
    if math.isnan(estimate.value):
        return estimate
    method = f"{estimate.method}; {PERMUTATIONS} seeded permutations"
    return replace(estimate, p_value=_permutation_p(columns[:, 0], columns[:, 1], strata, seed), method=method)


def _with_t_test(estimate: Estimate, freedom: int) -> Estimate:
    if math.isnan(estimate.value):
        return estimate
    rest = max(1 - estimate.value**2, 1e-300)
    p_value = float(2 * stats.t.sf(abs(estimate.value) * math.sqrt(freedom / rest), freedom))
    return replace(estimate, p_value=p_value, method=f"{estimate.method}; t test, {freedom} degrees of freedom")


def _permutation_p(x: Floats, y: Floats, strata: Units, seed: int) -> float:
    """Two-sided p of the rank correlation under permutations of y within strata; the observed order counts as one."""
    generator = np.random.default_rng(seed)
    # Sorting by stratum and then by a random key permutes within each stratum, all draws at once.
    by_stratum = np.argsort(strata, kind="stable")
    keys = generator.random((PERMUTATIONS, len(y)))
    order = np.argsort(strata[by_stratum][None, :] + keys, axis=1)
    scores, ranks = stats.rankdata(y)[by_stratum], stats.rankdata(x)[by_stratum]
    centred = ranks - ranks.mean()
    permuted, observed = scores[order], abs(float(centred @ scores))
    # Sums that are equal on paper differ in their last bits by the order of addition.
    tolerance = 1e-12 * float(np.abs(centred) @ scores)
    extreme = int(np.count_nonzero(np.abs(permuted @ centred) >= observed - tolerance))
    return (extreme + 1) / (PERMUTATIONS + 1)
