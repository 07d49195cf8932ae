"""Random-effects means, against the published analysis of the BCG trials, statsmodels, hand values and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.meta import paule_mandel, random_effects_mean

# Colditz et al. (1994), 13 trials of BCG vaccine: vaccinated with and without tuberculosis, then controls.
BCG = np.array([
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
    (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
], dtype=np.float64)  # fmt: skip


def relative_risks() -> tuple[np.ndarray, np.ndarray]:
    """Return the log relative risks of the trials and their standard errors."""
    a, b, c, d = BCG.T
    return np.log((a / (a + b)) / (c / (c + d))), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))


def test_the_trials_of_bcg_have_the_published_heterogeneity() -> None:
    estimates, errors = relative_risks()
    found = random_effects_mean(estimates, errors)
    # Viechtbauer, metafor (Journal of Statistical Software 36, 2010): Q = 152.23 with 12 degrees of freedom.
    weights = 1 / errors**2
    q = float(weights @ (estimates - weights @ estimates / weights.sum()) ** 2)
    assert q == pytest.approx(152.2330, abs=1e-3)
    assert found.heterogeneity == pytest.approx((q - 12) / q)
    assert found.heterogeneity_p == pytest.approx(stats.chi2.sf(q, 12))
    assert found.mean.n == 13


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_mean_interval_and_variance_are_those_of_statsmodels(seed: int) -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    generator = np.random.default_rng(seed)
    estimates, errors = relative_risks()
    if seed:  # other data, one set of them without heterogeneity
        errors = generator.uniform(0.1, 0.4, size=8)
        estimates = (0.5 if seed > 1 else 0.0) * generator.normal(size=8) + errors * generator.normal(size=8)
    found = random_effects_mean(estimates, errors)
    theirs = combine_effects(estimates, errors**2, method_re="iterated", use_t=True, atol=1e-14, maxiter=500)
    assert theirs.tau2 > 0 or seed == 1
    assert found.tau**2 == pytest.approx(max(theirs.tau2, 0.0), abs=1e-8)
    assert found.mean.value == pytest.approx(theirs.mean_effect_re, abs=1e-8)
    # statsmodels uses the observed spread unchanged. Our standard error is at least that implied by the given errors.
    error = theirs.sd_eff_w_re_hksj / math.sqrt(min(1.0, theirs.scale_hksj_re))
    half = stats.t.ppf(0.975, len(estimates) - 1) * error
    assert (found.mean.low, found.mean.high) == pytest.approx(
        (theirs.mean_effect_re - half, theirs.mean_effect_re + half), abs=1e-7
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_variance_solves_paules_and_mandels_equation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    variances = generator.uniform(0.01, 0.2, size=7)
    estimates = generator.normal(size=7)
    total = variances + paule_mandel(estimates, variances)
    mean = (estimates / total).sum() / (1 / total).sum()
    assert ((estimates - mean) ** 2 / total).sum() == pytest.approx(6)


def test_equal_errors_by_hand() -> None:
    # The mean is 2 and the sum of squares 2, so 2 / (1/4 + τ²) = 2 gives τ² = 3/4, and a standard error of √(1/3).
    found = random_effects_mean([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    assert paule_mandel(np.array([1.0, 2.0, 3.0]), np.full(3, 0.25)) == pytest.approx(0.75)
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2): the interval of three values with variance 1
    assert (found.mean.value, found.mean.low, found.mean.high) == pytest.approx((2, 2 - half, 2 + half))
    reach = 12.706204736432095 * math.sqrt(0.75 + 1 / 3)  # t(0.975, 1)
    assert (found.prediction.low, found.prediction.high) == pytest.approx((2 - reach, 2 + reach))
    assert found.heterogeneity == pytest.approx((8 - 2) / 8)
    assert found.heterogeneity_p == pytest.approx(math.exp(-4))  # χ² with 2 degrees of freedom


def test_equal_estimates_have_no_heterogeneity_and_the_interval_of_their_errors() -> None:
    found = random_effects_mean([0.1, 0.1, 0.1, 0.1], [0.02, 0.02, 0.02, 0.02])
    assert (found.tau, found.heterogeneity) == (0.0, 0.0)
    assert found.mean.high - 0.1 == pytest.approx(stats.t.ppf(0.975, 3) * 0.01)


def test_two_studies_predict_nothing_and_one_has_no_mean_over_studies() -> None:
    two = random_effects_mean([0.1, 0.2], [0.1, 0.1])
    assert math.isfinite(two.mean.low)
    assert math.isnan(two.prediction.low)
    assert "fewer than 3 studies" in two.prediction.method
    one = random_effects_mean([0.1], [0.1])
    assert math.isnan(one.mean.value)
    assert "fewer than 2 studies" in one.mean.method


@pytest.mark.parametrize(
    ("estimates", "errors", "said"),
    [
        ([0.1, 0.2], [0.1], "one standard error for each"),
        ([0.1, 0.2], [0.1, 0.0], "above 0"),
        ([math.nan, 0], [1, 1], "finite"),
    ],
)
def test_input_without_an_answer_is_refused(estimates: list[float], errors: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        random_effects_mean(estimates, errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k", "ratio", "mean", "further"), [(3, 1, 0.98, 1.0), (5, 1, 0.94, 0.90), (10, 2, 0.95, 0.94)]
)
def test_coverage_is_as_documented(k: int, ratio: float, mean: float, further: float) -> None:
    generator, sets = np.random.default_rng(k), 800
    covered = np.zeros(3)
    for _ in range(sets):
        effects = ratio * 2 / math.sqrt(5) * generator.normal(size=k + 1)
        drawn = effects[:k, None] + generator.uniform(1, 3, size=k)[:, None] * generator.normal(size=(k, 5))
        estimates, errors = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / math.sqrt(5)
        found = random_effects_mean(estimates, errors)
        weights = 1 / errors**2
        common, half = weights @ estimates / weights.sum(), 1.96 / math.sqrt(weights.sum())
        covered += (
            found.mean.low <= 0 <= found.mean.high,
            found.prediction.low <= effects[k] <= found.prediction.high,
            abs(common) <= half,
        )
    for share, expected in zip(covered / sets, (mean, further), strict=False):
        assert share == pytest.approx(expected, abs=3 * math.sqrt(max(expected * (1 - expected), 0.005) / sets) + 0.01)
    assert covered[2] / sets < 0.7  # with equal effects and known errors assumed


def test_the_level_of_the_mean_holds_without_an_effect() -> None:
    generator = np.random.default_rng(5)
    p_values = []
    for _ in range(400):
        errors = generator.uniform(0.5, 1.5, size=6)
        estimates = errors * generator.normal(size=6) + generator.normal(size=6)
        p_values.append(random_effects_mean(estimates, errors).mean.p_value)
    # 0.05 plus three standard errors of 0.011.
    assert np.mean(np.array(p_values) <= 0.05) <= 0.083
