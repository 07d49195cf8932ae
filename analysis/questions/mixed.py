"""Fit a mixed-effects model of accuracy on the gap with config as random group, for both levels in one fit.

Notation: m configs, n trials in total, n_i trials in config i. With g_i the mean gap in config i,

    accuracy_ij = intercept + between · g_i + (within + b_i) · (gap_ij - g_i) + fields_i · c + d_s(ij) + u_i + e_ij,
    u_i ~ N(0, s_u²), b_i ~ N(0, s_b²), e_ij ~ N(0, s_e²).

d_s is the fixed effect of a seed shared by several configs. The common effect of this seed on all configs must not
count as new evidence about the gap with every config. A seed in only a single trial has no fixed effect.

The gap is split into the config mean and the deviation from it, which keeps the two questions apart. A single
coefficient would blend both, weighted by their noise.

The effect within configs may differ between configs by b_i. `within` is the mean effect over all possible configs in a
study, so configs are the independent units for both effects. Without b_i, the interval covered that mean in 0.71 of
300 simulated studies with 4 configs, 16 seeds, s_e = 1 and s_b = 0.4; with b_i in 0.96. For s_b = 0 it is then nearly
twice as long as needed with 4 configs, and a sixth longer with 12.

With d_i the deviations in config i, S_i = d_i' d_i, r = s_u² / s_e² and q = s_b² / s_e², the covariance of config i is
s_e² (I + r J + q d_i d_i'). As deviations have mean 0, the inverse is
(I - r / (1 + n_i r) J - q / (1 + S_i q) d_i d_i') / s_e². Given r and q, the fit is therefore least squares on adjusted
sums of squares. Alternating one-dimensional searches over r and q maximise the restricted likelihood, with 0
included.

Source: Patterson and Thompson (1971) for the restricted likelihood; Mundlak (1978) for the split.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analysis.reading.landmark import GAPS, Evidence, Floats, GapName, Landmark, at_landmark, config_columns
from analysis.reading.trials import StudyRecords, trial_scores
from analysis.statistics.distributions import t_quantile, t_tail
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE, complete, unit_count, unit_means

# Range for log r and for the scaled log q. Outside it, one variance is negligible.
_LOG_RATIOS: Final = (-12.0, 12.0)
# Alternating searches for r and q. The two hardly depend on each other, as deviations have mean 0 within configs.
_MOST_ROUNDS: Final = 12
_BETWEEN: Final = 1
_WITHIN: Final = 2


class MixedModel(NamedTuple):
    """Mixed-effects model of accuracy on the gap, at both levels.

    Args:
        between: accuracy change per nat between configs; n counts configs.
        within: mean accuracy change per nat within configs, over seeds; n counts configs.
        config_sd: s_u, in accuracy.
        seed_sd: s_e, in accuracy.
        slope_sd: s_b, in accuracy per nat: standard deviation between configs of the effect within configs.
        evidence: exploratory or confirmatory.
        note: names the trials and the epoch.
    """

    between: Estimate
    within: Estimate
    config_sd: float
    seed_sd: float
    slope_sd: float
    evidence: Evidence
    note: str


class Fit(NamedTuple):
    """Model with random intercepts and slopes, fitted by restricted maximum likelihood.

    Args:
        coefficients: (k,).
        covariance: (k, k) coefficient covariance.
        group_variance: s_u².
        residual_variance: s_e².
        slope_variance: s_b².
    """

    coefficients: Floats
    covariance: Floats
    group_variance: float
    residual_variance: float
    slope_variance: float


def gap_mixed_model(records: StudyRecords, gap: GapName, *, held: Sequence[str] = ()) -> MixedModel:
    """Fit the model to the repeated configs in a study, from their trials on fresh seeds.

    Search trials are excluded for two reasons. The search trained each config once, so it has no information about
    seed variation within a config. A promising config was chosen by the search trial, so this trial would make the
    config look better.

    Args:
        records: study records.
        gap: gap name.
        held: config fields to hold.
    """
    return mixed_model_at(at_landmark(records, searched=False), gap, held=held)


def mixed_model_at(landmark: Landmark, gap: GapName, *, held: Sequence[str] = ()) -> MixedModel:
    """Fit the model to given trials on fresh seeds, for example from several studies.

    Args:
        landmark: trials at the landmark.
        gap: gap name.
        held: config fields to hold.
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
) -> tuple[Estimate, Estimate, tuple[float, float, float]]:
    """Estimate effects of x on y between and within groups, and the standard deviations around them.

    The effect within groups may differ between groups; the mean over groups is estimated. Groups are the independent
    units for both effects. The intervals therefore use Student's t, between groups with the number of groups minus
    the group-level coefficients, and within groups with the number of groups minus one. For balanced data both are
    exact, except for one constraint: a variance cannot be negative. This makes the intervals longer if groups do not
    differ.

    Args:
        x: (n,), without missing values.
        y: (n,).
        groups: (n,) group label for each observation.
        covariates: (n, k), constant within groups, or None.
        crossed: (n,) label shared by observations in different groups, such as the seed, or None. Each repeated label
            gets a fixed effect.

    Returns:
        Estimates between and within groups, and the standard deviations between groups, of residuals and between
        effects within groups. Everything is nan if x does not vary at a level or no degree of freedom is left.

    Raises:
        ValueError: if the lengths differ.
    """
    held = np.empty((len(x), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    columns, units = complete([x, y, *held.T], groups)
    n, m = len(columns), unit_count(units)
    name = f"random intercepts and slopes of {m} configs by REML, Student t interval, {CONFIDENCE}"
    k = held.shape[1]
    shared = _shared_effects(np.arange(n) if crossed is None else complete([x, y, *held.T], crossed)[1])
    freedom = {_BETWEEN: m - 2 - k, _WITHIN: m - 1}
    nothing = Estimate(math.nan, math.nan, math.nan, m, f"{name}: undefined")
    undefined = nothing, nothing, (math.nan, math.nan, math.nan)
    if min(*freedom.values(), n - m - 1 - shared.shape[1]) < 1:
        return undefined
    means = unit_means(columns[:, 0], units)
    split = [means - means.mean(), columns[:, 0] - means]
    others = columns[:, 2:] - columns[:, 2:].mean(axis=0)
    spread = others.std(axis=0)
    design = np.column_stack([np.ones(n), *split, others / np.where(spread > 0, spread, 1.0), shared])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return undefined
    fit = random_effects(design, columns[:, 1], units, split[1])
    between, within = (_estimate(fit, level, freedom[level], m, name) for level in (_BETWEEN, _WITHIN))
    return (
        between,
        within,
        (
            math.sqrt(fit.group_variance),
            math.sqrt(fit.residual_variance),
            math.sqrt(fit.slope_variance),
        ),
    )


def _shared_effects(labels: NDArray[np.intp]) -> Floats:
    """Return indicators (n, k) of labels shared by several observations.

    If every observation has a shared label, one indicator is dropped to avoid collinearity with the intercept.
    """
    counts = np.bincount(labels)
    several = np.flatnonzero(counts > 1)
    indicators = (labels[:, None] == several[None, :]).astype(np.float64)
    return indicators[:, 1:] if len(several) and counts[several].sum() == len(labels) else indicators


def random_effects(design: Floats, y: Floats, units: NDArray[np.intp], deviations: Floats | None = None) -> Fit:
    """Fit y = design · coefficients + group + slope · deviation + residual by restricted maximum likelihood.

    Args:
        design: (n, k), of full rank, including the intercept.
        y: (n,).
        units: (n,) group number for each observation.
        deviations: (n,) values with mean 0 within each group, and with a slope per group; None for no slopes.
    """
    table, k = np.column_stack([design, y]), design.shape[1]
    sizes = np.bincount(units).astype(np.float64)
    along = np.zeros(len(y)) if deviations is None else deviations
    squares = np.bincount(units, weights=along**2)
    means = np.column_stack([np.bincount(units, weights=column) for column in table.T]) / sizes[:, None]
    crosses = np.column_stack([np.bincount(units, weights=along * column) for column in table.T])
    products = table.T @ table
    freedom = len(y) - k

    def given(group: Floats, slope: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return −2 log likelihood up to a constant, coefficients, their scaled covariance, and s_e², for B ratios."""
        of_means = sizes**2 * group[:, None] / (1 + sizes * group[:, None])
        of_slopes = slope[:, None] / (1 + squares * slope[:, None])
        sums = products - np.einsum("bm,mi,mj->bij", of_means, means, means)
        sums = sums - np.einsum("bm,mi,mj->bij", of_slopes, crosses, crosses)
        inverse = np.linalg.inv(sums[:, :k, :k])
        coefficients = np.einsum("bij,bj->bi", inverse, sums[:, :k, k])
        left = sums[:, k, k] - np.einsum("bi,bi->b", coefficients, sums[:, :k, k])
        variance = np.maximum(left, 0.0) / freedom
        shape = np.log1p(sizes * group[:, None]).sum(axis=1) + np.log1p(squares * slope[:, None]).sum(axis=1)
        with np.errstate(divide="ignore"):
            criterion = freedom * np.log(variance) + shape - np.linalg.slogdet(inverse)[1]
        return criterion, coefficients, inverse, variance

    def best_group(slope: float) -> float:
        return _best_ratio(lambda ratios: given(ratios, np.full(len(ratios), slope))[0])

    def best_slope(group: float) -> float:
        return _best_ratio(lambda ratios: given(np.full(len(ratios), group), ratios / scale)[0]) / scale

    group = slope = 0.0
    scale = float(squares.mean() / sizes.mean()) or 1.0  # so that both ratios have one range
    for _ in range(_MOST_ROUNDS):
        before, group = group, best_group(slope)
        if deviations is None:
            break
        slope = best_slope(group)
        if abs(group - before) <= 1e-5 * group:
            break
    (_,), (coefficients,), (inverse,), (variance,) = given(np.array([group]), np.array([slope]))
    return Fit(
        np.asarray(coefficients),
        np.asarray(variance * inverse),
        float(group * variance),
        float(variance),
        float(slope * variance),
    )


def _best_ratio(criterion: Callable[[Floats], Floats]) -> float:
    """Return the variance ratio with the smallest criterion, 0 included."""
    # The minimum may lie at either end, so a grid brackets it before the refinement.
    grid = np.linspace(*_LOG_RATIOS, 49)
    best = int(np.argmin(criterion(np.exp(grid))))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = optimize.minimize_scalar(lambda at: float(criterion(np.exp([at]))[0]), bounds=bounds, method="bounded")
    return math.exp(found.x) if found.fun < criterion(np.zeros(1))[0] else 0.0


def _estimate(fit: Fit, place: int, freedom: int, n: int, name: str) -> Estimate:
    value, error = float(fit.coefficients[place]), math.sqrt(float(fit.covariance[place, place]))
    half = t_quantile((1 + CONFIDENCE) / 2, freedom) * error
    p_value = 2 * t_tail(abs(value) / error, freedom) if error > 0 else math.nan
    method = f"{name}, {freedom} degrees of freedom"
    return Estimate(value, value - half, value + half, n, method, p_value)
