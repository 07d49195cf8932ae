"""A mixed-effects model of accuracy on the gap, with config as random group: both levels in one fit.

Notation: m configs, n trials in all, n_i of config i. With the config's mean gap g_i,

    accuracy_ij = intercept + between · g_i + within · (gap_ij - g_i) + fields_i · c + d_s(ij) + u_i + e_ij,
    u_i ~ N(0, s_u²), e_ij ~ N(0, s_e²).

d_s is the fixed effect of a seed that several configs share: what it does to all of them alike is no evidence on the
gap that counts anew with every config. A seed that one trial has to itself has none.

Splitting the gap into its config's mean and the rest keeps the two questions apart: a single coefficient would be a
blend of both, weighted by how noisy each is. With ratio r = s_u² / s_e² the covariance of config i is
s_e² (I + r J), whose inverse is (I - r / (1 + n_i r) J) / s_e²: the fit given r is least squares on numbers of which a
share of their config's mean was taken, and r maximises the restricted likelihood, along a line and so also at r = 0.

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

# Of log r; beyond, one of the two variances is nothing beside the other.
_LOG_RATIOS: Final = (-12.0, 12.0)
_BETWEEN: Final = 1
_WITHIN: Final = 2


class MixedModel(NamedTuple):
    """Accuracy on the gap at both levels.

    Args:
        between: change of accuracy per nat between configs; n counts configs.
        within: the same within configs over seeds; n counts trials.
        config_sd: s_u, in accuracy.
        seed_sd: s_e, in accuracy.
        evidence: exploratory or confirmatory.
        note: which trials it is of.
    """

    between: Estimate
    within: Estimate
    config_sd: float
    seed_sd: float
    evidence: Evidence
    note: str


class Fit(NamedTuple):
    """A random-intercept model by restricted maximum likelihood.

    Args:
        coefficients: (k,).
        covariance: (k, k), of the coefficients.
        group_variance: s_u².
        residual_variance: s_e².
    """

    coefficients: Floats
    covariance: Floats
    group_variance: float
    residual_variance: float


def gap_mixed_model(records: StudyRecords, gap: GapName, *, held: Sequence[str] = ()) -> MixedModel:
    """The model of a study's repeated configs, from their trials on fresh seeds.

    The trials of the search are not in it: it trained each config once, which tells nothing of a config's seeds, and
    the one that a promising config was chosen by would flatter it.

    Args:
        records: of a study.
        gap: which.
        held: fields of the config that are held.
    """
    return mixed_model_at(at_landmark(records, searched=False), gap, held=held)


def mixed_model_at(landmark: Landmark, gap: GapName, *, held: Sequence[str] = ()) -> MixedModel:
    """The same of trials on fresh seeds that are at hand, such as those of several studies.

    Args:
        landmark: the trials.
        gap: which.
        held: fields of the config that are held.
    """
    trials = landmark.trials
    values = [GAPS[gap](trials), trial_scores(trials), *config_columns(trials, held).T]
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
    """The effects of x on y between and within groups, and the standard deviations of groups and of the rest.

    Intervals are Student's t with the degrees of freedom of the effect's own level: groups less what is fitted to
    groups, and observations less groups less one less the crossed effects. In balanced data that is exact.

    Args:
        x: (n,), without missing values.
        y: (n,).
        groups: (n,) label of each observation's group.
        covariates: (n, k), constant within groups, or None.
        crossed: (n,) label of what an observation shares with those of other groups, such as its seed: a fixed effect
            each, but for labels of one observation; or None.

    Returns:
        Between and within, nan where x does not vary there or no degree of freedom is left.

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
    """Indicators (n, k) of labels of several observations; of all but one where every observation has such a label."""
    counts = np.bincount(labels)
    several = np.flatnonzero(counts > 1)
    indicators = (labels[:, None] == several[None, :]).astype(np.float64)
    return indicators[:, 1:] if len(several) and counts[several].sum() == len(labels) else indicators


def random_intercept(design: Floats, y: Floats, units: NDArray[np.intp]) -> Fit:
    """Restricted maximum likelihood of y = design · coefficients + group + rest.

    Args:
        design: (n, k), of full rank, its intercept included.
        y: (n,).
        units: (n,) number of each observation's group.
    """
    table = np.column_stack([design, y])
    sizes = np.bincount(units).astype(np.float64)
    means = np.column_stack([np.bincount(units, weights=column) for column in table.T]) / sizes[:, None]
    products, k = table.T @ table, design.shape[1]

    def given(ratio: float) -> tuple[float, Floats, Floats, float]:
        """Twice the negative log likelihood up to a constant, coefficients, their scaled covariance, s_e²."""
        weights = sizes**2 * ratio / (1 + sizes * ratio)
        sums = products - (means * weights[:, None]).T @ means
        inverse = np.asarray(np.linalg.inv(sums[:k, :k]), dtype=np.float64)
        coefficients = inverse @ sums[:k, k]
        freedom = len(y) - k
        variance: float = max(float(sums[k, k] - coefficients @ sums[:k, k]), 0.0) / freedom
        shape = float(np.log1p(sizes * ratio).sum() - np.linalg.slogdet(inverse)[1])
        criterion: float = freedom * math.log(variance) + shape if variance > 0 else -math.inf
        return criterion, coefficients, inverse, variance

    # The criterion may have its least value at either end, so a grid brackets what is then refined.
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
