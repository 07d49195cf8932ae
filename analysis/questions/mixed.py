"""Fit a mixed-effects model of accuracy on the gap with config as random group, for both levels in one fit.

Notation: m configs, n trials in total, n_i trials of config i. With g_i the mean gap of config i,

    accuracy_ij = intercept + between · g_i + within · (gap_ij - g_i) + fields_i · c + d_s(ij) + u_i + e_ij,
    u_i ~ N(0, s_u²), e_ij ~ N(0, s_e²).

d_s is the fixed effect of a seed that several configs share. The common effect of such a seed on all configs must not
count as new evidence about the gap with every config. A seed that belongs to a single trial has no fixed effect.

The gap is split into the mean of the config and the deviation from it, which keeps the two questions apart. A single
coefficient would blend both, weighted by how noisy each is. With ratio r = s_u² / s_e², the covariance of config i is
s_e² (I + r J), with inverse (I - r / (1 + n_i r) J) / s_e². Given r, the fit is therefore least squares on values minus
a fraction of the config mean. A one-dimensional search finds the r that maximises the restricted likelihood, with r = 0
included.

Source: Patterson and Thompson (1971) for the restricted likelihood; Mundlak (1978) for the split.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from analysis.reading.landmark import GAPS, Evidence, Floats, GapName, Landmark, at_landmark, config_columns
from analysis.reading.trials import StudyRecords, trial_scores
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE, complete, unit_count, unit_means

# Range of log r. Outside it, one of the two variances is negligible.
_LOG_RATIOS: Final = (-12.0, 12.0)
_BETWEEN: Final = 1
_WITHIN: Final = 2


class MixedModel(NamedTuple):
    """Mixed-effects model of accuracy on the gap, at both levels.

    Args:
        between: change of accuracy per nat between configs; n counts configs.
        within: change of accuracy per nat within configs, over seeds; n counts trials.
        config_sd: s_u, in accuracy.
        seed_sd: s_e, in accuracy.
        evidence: exploratory or confirmatory.
        note: names the trials and the epoch.
    """

    between: Estimate
    within: Estimate
    config_sd: float
    seed_sd: float
    evidence: Evidence
    note: str


class Fit(NamedTuple):
    """Random-intercept model fitted by restricted maximum likelihood.

    Args:
        coefficients: (k,).
        covariance: (k, k) covariance of the coefficients.
        group_variance: s_u².
        residual_variance: s_e².
    """

    coefficients: Floats
    covariance: Floats
    group_variance: float
    residual_variance: float


def gap_mixed_model(records: StudyRecords, gap: GapName, *, held: Sequence[str] = ()) -> MixedModel:
    """Fit the model to the repeated configs of a study, from their trials on fresh seeds.

    Search trials are excluded for two reasons. The search trained each config once, so it has no information about the
    seeds of a config. A promising config was chosen by the search trial, so including this trial would flatter the
    config.

    Args:
        records: study records.
        gap: gap name.
        held: fields of the config to hold.
    """
    return mixed_model_at(at_landmark(records, searched=False), gap, held=held)


def mixed_model_at(landmark: Landmark, gap: GapName, *, held: Sequence[str] = ()) -> MixedModel:
    """Fit the model to given trials on fresh seeds, such as those of several studies.

    Args:
        landmark: trials at the landmark.
        gap: gap name.
        held: fields of the config to hold.
    """
    trials = landmark.trials
    values = [GAPS[gap](trials), trial_scores(trials), *config_columns(trials, held, landmark.log_fields).T]
    columns, units = complete(values, trials["config_id"].to_pylist())
    _, seeds = complete(values, trials["seed"].to_pylist())
    between, within, deviations = mixed_effects(
        columns[:, 0], columns[:, 1], units.tolist(), columns[:, 2:], crossed=seeds.tolist()
    )
    return MixedModel(between, within, *deviations, landmark.evidence, landmark.note)


def mixed_effects(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    groups: Sequence[object],
    covariates: Floats | None = None,
    *,
    crossed: Sequence[object] | None = None,
) -> tuple[Estimate, Estimate, tuple[float, float]]:
    """Estimate effects of x on y between and within groups, and the standard deviations of groups and residuals.

    The intervals use Student's t with the degrees of freedom of the level. Between groups, this is the number of groups
    minus the coefficients fitted to groups. Within groups, it is observations minus groups minus one minus crossed
    effects. For balanced data this is exact.

    Args:
        x: (n,), without missing values.
        y: (n,).
        groups: (n,) group label of each observation.
        covariates: (n, k), constant within groups, or None.
        crossed: (n,) label that observations of different groups share, such as the seed, or None. Each label that
            occurs more than once gets a fixed effect.

    Returns:
        Estimates between and within groups, and the two standard deviations. All are nan if x does not vary at a level
        or no degree of freedom is left.

    Raises:
        ValueError: if the lengths differ.
    """
    held = np.empty((len(x), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    columns, units = complete([x, y, *held.T], groups)
    n, m = len(columns), unit_count(units)
    name = f"random intercept of {m} configs by REML, Student t interval, {CONFIDENCE}"
    k = held.shape[1]
    shared = _shared_effects(np.arange(n) if crossed is None else complete([x, y, *held.T], crossed)[1])
    freedom = {_BETWEEN: m - 2 - k, _WITHIN: n - m - 1 - shared.shape[1]}
    nothing = {level: Estimate(math.nan, math.nan, math.nan, count, f"{name}: undefined") for level, count in
               ((_BETWEEN, m), (_WITHIN, n))}  # fmt: skip
    if min(freedom.values()) < 1:
        return nothing[_BETWEEN], nothing[_WITHIN], (math.nan, math.nan)
    means = unit_means(columns[:, 0], units)
    split = [means - means.mean(), columns[:, 0] - means]
    others = columns[:, 2:] - columns[:, 2:].mean(axis=0)
    spread = others.std(axis=0)
    design = np.column_stack([np.ones(n), *split, others / np.where(spread > 0, spread, 1.0), shared])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return nothing[_BETWEEN], nothing[_WITHIN], (math.nan, math.nan)
    fit = random_intercept(design, columns[:, 1], units)
    between, within = (
        _estimate(fit, level, freedom[level], count, name) for level, count in ((_BETWEEN, m), (_WITHIN, n))
    )
    return between, within, (math.sqrt(fit.group_variance), math.sqrt(fit.residual_variance))


def _shared_effects(labels: NDArray[np.intp]) -> Floats:
    """Return indicators (n, k) of labels shared by several observations.

    If every observation has such a label, one indicator is dropped to avoid collinearity with the intercept.
    """
    counts = np.bincount(labels)
    several = np.flatnonzero(counts > 1)
    indicators = (labels[:, None] == several[None, :]).astype(np.float64)
    return indicators[:, 1:] if len(several) and counts[several].sum() == len(labels) else indicators


def random_intercept(design: Floats, y: Floats, units: NDArray[np.intp]) -> Fit:
    """Fit y = design · coefficients + group + residual by restricted maximum likelihood.

    Args:
        design: (n, k), of full rank, including the intercept.
        y: (n,).
        units: (n,) group number of each observation.
    """
    table = np.column_stack([design, y])
    sizes = np.bincount(units).astype(np.float64)
    means = np.column_stack([np.bincount(units, weights=column) for column in table.T]) / sizes[:, None]
    products, k = table.T @ table, design.shape[1]

    def given(ratio: float) -> tuple[float, Floats, Floats, float]:
        """Return −2 log likelihood up to a constant, coefficients, their scaled covariance, and s_e²."""
        weights = sizes**2 * ratio / (1 + sizes * ratio)
        sums = products - (means * weights[:, None]).T @ means
        inverse = np.asarray(np.linalg.inv(sums[:k, :k]), dtype=np.float64)
        coefficients = inverse @ sums[:k, k]
        freedom = len(y) - k
        variance: float = max(float(sums[k, k] - coefficients @ sums[:k, k]), 0.0) / freedom
        shape = float(np.log1p(sizes * ratio).sum() - np.linalg.slogdet(inverse)[1])
        criterion: float = freedom * math.log(variance) + shape if variance > 0 else -math.inf
        return criterion, coefficients, inverse, variance

    # The minimum may lie at either end, so a grid brackets it before the refinement.
    grid = np.linspace(*_LOG_RATIOS, 49)
    values = [given(math.exp(each))[0] for each in grid]
    best = int(np.argmin(values))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(lambda each: given(math.exp(each))[0], bounds=(low, high), method="bounded")
    ratio = math.exp(found.x) if found.fun < given(0.0)[0] else 0.0
    _, coefficients, inverse, variance = given(ratio)
    return Fit(coefficients, variance * inverse, ratio * variance, variance)


def _estimate(fit: Fit, place: int, freedom: int, n: int, name: str) -> Estimate:
    value, error = float(fit.coefficients[place]), math.sqrt(float(fit.covariance[place, place]))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(value) / error, freedom)) if error > 0 else math.nan
    method = f"{name}, {freedom} degrees of freedom"
    return Estimate(value, value - half, value + half, n, method, p_value)
