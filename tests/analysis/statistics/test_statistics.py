"""Estimates against hand values, scipy and planted values."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.correlation import partial_rank_correlation, rank_correlation
from analysis.statistics.estimates import (
    MIN_STUDENTISED,
    Estimate,
    holm,
    interval_methods,
    mean_interval,
    mediation,
    paired_difference,
    within_range,
)

STUDIES = 200
# Over 200 simulated studies, a coverage of 0.95 has a standard error of 0.015. The band allows three of them on each
# side.
BAND = (0.90, 1.0)


def holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def test_the_mean_interval_of_one_two_three_is_the_one_in_the_t_table() -> None:
    estimate = mean_interval([1.0, 2.0, 3.0, math.nan])
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2 degrees of freedom)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2.0, 2 - half, 2 + half))
    assert estimate.n == 3


def test_the_mean_interval_is_scipys_at_another_confidence() -> None:
    values = np.random.default_rng(0).normal(size=9)
    estimate = mean_interval(values, confidence=0.8)
    expected = stats.t.interval(0.8, 8, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_one_value_has_a_mean_and_no_interval_and_none_has_neither() -> None:
    one, none = mean_interval([0.5]), mean_interval([])
    assert (one.value, one.n) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(none.value)
    assert none.n == 0
    assert "n < 2" in one.method


def test_an_estimate_prints_its_value_interval_and_n() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 7, "m")) == "0.500 [0.250, 0.750], n = 7"
    assert str(Estimate(0.5, math.nan, math.nan, 1, "m", 0.0625)) == "0.500 (no interval), p = 0.062, n = 1"


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence=confidence)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=30))
def test_the_rank_correlation_is_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=float).T
    ours = rank_correlation(x, y).value
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_monotone_relation_has_rank_correlation_one_and_an_interval_that_ends_there() -> None:
    x = np.arange(1.0, 9.0)
    estimate = rank_correlation(x, np.exp(x))
    assert (estimate.value, estimate.high) == pytest.approx((1.0, 1.0))
    assert 0.9 < estimate.low < 1
    assert rank_correlation(x, -x).value == pytest.approx(-1.0)


def test_a_constant_input_has_no_rank_correlation_and_says_so() -> None:
    estimate = rank_correlation([1.0] * 8, np.arange(8.0))
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert "does not vary" in estimate.method
    assert estimate.n == 8


def test_a_missing_value_takes_its_pair_out_and_n_tells() -> None:
    x = np.array([1, 2, 3, 4, 5, 6, math.nan, 8])
    y = np.array([1, 3, 2, 5, 4, math.nan, 7, 8])
    estimate = rank_correlation(x, y)
    assert estimate.n == 6
    assert estimate.value == pytest.approx(stats.spearmanr(x, y, nan_policy="omit").statistic)


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_too_few_units_give_no_interval(n: int) -> None:
    estimate = rank_correlation(np.arange(n), np.arange(n))
    assert math.isnan(estimate.low)
    assert estimate.n == n


def test_inputs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        rank_correlation([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="equal length"):
        rank_correlation([1.0, 2.0], [1.0, 2.0], groups=["a"])
    with pytest.raises(ValueError, match="equal length"):
        paired_difference([1.0, 2.0], [1.0])


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 15))
    assert rank_correlation(x, y, seed=4) == rank_correlation(x, y, seed=4)
    assert rank_correlation(x, y, seed=4).low != rank_correlation(x, y, seed=5).low
    assert paired_difference(x, y, seed=4) == paired_difference(x, y, seed=4)


def test_groups_of_one_are_no_groups_at_all() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 12))
    alone, grouped = rank_correlation(x, y), rank_correlation(x, y, groups=range(12))
    assert (alone.value, alone.low, alone.high, alone.n) == (
        grouped.value,
        grouped.low,
        grouped.high,
        grouped.n,
    )


@pytest.mark.study
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_rank_correlations_interval_covers_the_truth_as_often_as_it_says(correlation: float) -> None:
    generator = np.random.default_rng(11)
    truth = 6 / math.pi * math.asin(correlation / 2)  # Spearman's correlation of a bivariate normal distribution
    covered = 0
    for _ in range(STUDIES):
        x = generator.normal(size=20)
        y = correlation * x + math.sqrt(1 - correlation**2) * generator.normal(size=20)
        covered += holds(rank_correlation(x, y), truth)
    assert BAND[0] <= covered / STUDIES <= BAND[1]


@pytest.mark.study
def test_repeated_configs_fool_an_interval_over_trials_and_not_one_over_groups() -> None:
    generator = np.random.default_rng(12)
    groups = np.repeat(np.arange(15), 6)
    false_alarms = {"trials": 0, "groups": 0}
    for _ in range(60):
        # Accuracy and gap depend on the config, independently of each other, so there is no correlation.
        x, y = (np.repeat(generator.normal(size=15), 6) + 0.1 * generator.normal(size=90) for _ in range(2))
        false_alarms["trials"] += not holds(rank_correlation(x, y), 0)
        false_alarms["groups"] += not holds(rank_correlation(x, y, groups=groups), 0)
    assert false_alarms["trials"] > 18
    # The expected number is 3 of 60, with a standard error of 1.7.
    assert false_alarms["groups"] <= 8


def test_n_counts_the_groups() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 20))
    estimate = rank_correlation(x, y, groups=["abcde"[i % 5] for i in range(20)])
    assert estimate.n == 5
    assert "over groups" in estimate.method


def test_the_partial_rank_correlation_is_that_of_the_residuals_of_the_ranks() -> None:
    generator = np.random.default_rng(2)
    held = generator.normal(size=(40, 2))
    x = held[:, 0] + generator.normal(size=40)
    y = held.sum(axis=1) + generator.normal(size=40)
    design = np.column_stack([np.ones(40), *map(stats.rankdata, held.T)])
    residuals = [ranks - design @ np.linalg.lstsq(design, ranks)[0] for ranks in (stats.rankdata(x), stats.rankdata(y))]
    expected = np.corrcoef(*residuals)[0, 1]
    assert partial_rank_correlation(x, y, held).value == pytest.approx(expected)


@pytest.mark.study
def test_a_common_cause_that_is_held_leaves_no_correlation() -> None:
    generator = np.random.default_rng(3)
    cause = generator.normal(size=400)
    x, y = (cause + 0.5 * generator.normal(size=400) for _ in range(2))
    assert rank_correlation(x, y).low > 0.6
    assert holds(partial_rank_correlation(x, y, cause), 0.0)


def test_a_constant_covariate_changes_nothing_and_one_equal_to_x_leaves_nothing() -> None:
    generator = np.random.default_rng(4)
    x, y = generator.normal(size=(2, 25))
    assert partial_rank_correlation(x, y, np.ones(25)).value == pytest.approx(rank_correlation(x, y).value)
    assert math.isnan(partial_rank_correlation(x, y, x).value)


def test_the_paired_difference_of_known_pairs_has_the_mean_and_the_p_value_by_hand() -> None:
    estimate = paired_difference([3.0, 4.0, 5.0], [2.0, 2.0, 2.0])
    assert estimate.value == 2.0
    assert estimate.p_value == 2 / 8  # only all plus and all minus reach the observed sum of 6
    assert math.isnan(estimate.low)
    assert "exact" in estimate.method


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_the_permutation_p_is_that_of_enumerating_every_flip(differences: list[int]) -> None:
    observed = abs(sum(differences))
    flips = list(itertools.product([-1, 1], repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(flip, differences, strict=True))) >= observed for flip in flips)
    # 0.1 has no exact binary representation. The tolerance keeps sums equal that are equal on paper.
    estimate = paired_difference(np.array(differences) * 0.1, np.zeros(len(differences)))
    assert estimate.p_value == extreme / len(flips)


@pytest.mark.parametrize("n", range(2, 11))
def test_the_exact_p_value_is_scipys(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, size=n)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=2**n, vectorized=True
    ).pvalue
    assert paired_difference(differences, np.zeros(n)).p_value == pytest.approx(expected, abs=1e-12)


def test_differences_that_cancel_on_paper_have_a_p_value_of_one() -> None:
    # In floating point, these sums are not 0. SciPy gives 0.97 for the second.
    assert paired_difference([0.2, 0.1, -0.5, -0.1, 0.3], np.zeros(5)).p_value == 1.0
    assert paired_difference([-0.4, 0.2, -0.8, 1.1, 0.2, -0.3], np.zeros(6)).p_value == 1.0


@pytest.mark.parametrize("n", [8, 20])
def test_the_studentised_interval_is_that_of_scipys_resamples(n: int) -> None:
    differences = np.random.default_rng(15).exponential(size=n) - 0.5

    def t_of(values: np.ndarray, axis: int = -1) -> np.ndarray:
        error = values.std(axis=axis, ddof=1) / math.sqrt(n)
        return np.asarray((values.mean(axis=axis) - differences.mean()) / error)

    drawn = stats.bootstrap(
        (differences,), t_of, n_resamples=20_000, method="percentile", rng=np.random.default_rng(16)
    ).bootstrap_distribution
    low, high = np.quantile(drawn, [0.025, 0.975])
    error, ours = stats.sem(differences), paired_difference(differences, np.zeros(n))
    # Monte Carlo error of 4,000 resamples. It is larger for the quantile of the long tail.
    assert (differences.mean() - ours.low) / error == pytest.approx(high, abs=0.1)
    assert (differences.mean() - ours.high) / error == pytest.approx(low, rel=0.1)


@pytest.mark.study
def test_the_interval_over_groups_is_close_to_scipys() -> None:
    generator = np.random.default_rng(17)
    groups = np.repeat(np.arange(12), 4)
    x, y = (np.repeat(generator.normal(size=12), 4) + generator.normal(size=48) for _ in range(2))

    def correlation(drawn: np.ndarray) -> float:
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        return float(stats.spearmanr(x[rows], y[rows]).statistic)

    expected = stats.bootstrap(
        (np.arange(12),), correlation, vectorized=False, n_resamples=1500, method="percentile", rng=generator
    ).confidence_interval
    ours = rank_correlation(x, y, groups=groups)
    # The Monte Carlo error of a 2.5% quantile of 1,500 resamples is about 0.02 here.
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=0.06)


def test_the_intervals_of_a_mediation_are_close_to_scipys() -> None:
    generator = np.random.default_rng(18)
    treatment = generator.normal(size=40)
    mediator = treatment + generator.normal(size=40)
    outcome = 0.5 * treatment - mediator + generator.normal(size=40)

    def effects(t: np.ndarray, m: np.ndarray, y: np.ndarray) -> np.ndarray:
        ones = np.ones(len(t))
        a = np.linalg.lstsq(np.column_stack([t, ones]), m)[0][0]
        direct, b, _ = np.linalg.lstsq(np.column_stack([t, m, ones]), y)[0]
        return np.array([direct, a * b, direct + a * b])

    drawn = stats.bootstrap(
        (treatment, mediator, outcome), effects, paired=True, vectorized=False, n_resamples=1500, method="percentile",
        rng=generator,
    ).confidence_interval  # fmt: skip
    found = mediation(treatment, mediator, outcome)
    # The standard errors are 0.2 to 0.3 here, those of the quantiles of 1,500 resamples about a twelfth of that.
    assert [each.low for each in found] == pytest.approx(drawn.low.tolist(), abs=0.08)
    assert [each.high for each in found] == pytest.approx(drawn.high.tolist(), abs=0.08)


def test_beyond_sixteen_pairs_the_p_value_is_drawn_and_agrees_with_scipy() -> None:
    generator = np.random.default_rng(6)
    differences = generator.normal(0.3, 1, size=25)
    ours = paired_difference(differences, np.zeros(25))
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=generator
    ).pvalue
    assert ours.p_value == pytest.approx(expected, abs=0.02)
    assert "20000 seeded flips" in ours.method


@pytest.mark.study
@pytest.mark.parametrize(("n", "skewed", "nominal"), [
    (4, False, 0.95), (5, False, 0.95), (6, False, 0.95), (10, False, 0.95),
    # The docstring documents these: Student's t for 4 and 5 skewed differences, the bootstrap for more.
    (4, True, 0.88), (5, True, 0.885), (6, True, 0.935), (10, True, 0.94),
])  # fmt: skip
def test_the_paired_differences_interval_covers_the_truth_as_often_as_it_says(
    n: int, skewed: bool, nominal: float
) -> None:
    generator = np.random.default_rng(7)
    covered, studies = 0, 2 * STUDIES
    for _ in range(studies):
        shared = generator.normal(size=n)
        own = generator.exponential(size=n) - 1 if skewed else generator.normal(size=n)
        covered += holds(paired_difference(shared + own + 0.5, shared), 0.5)
    assert covered / studies == pytest.approx(nominal, abs=3 * math.sqrt(nominal * (1 - nominal) / studies))


def test_few_pairs_have_students_interval_and_say_so_and_more_the_bootstraps() -> None:
    differences = np.array([0.01, 0.02, 0.05, 0.03, 0.02, 0.04])
    few = paired_difference(differences[:5], np.zeros(5))
    expected = stats.t.interval(0.95, 4, differences[:5].mean(), stats.sem(differences[:5]))
    assert (few.low, few.high) == pytest.approx(expected)
    assert few.method.startswith("mean paired difference, Student t interval as n < 6, 0.95; exact")
    more = paired_difference(differences, np.zeros(6))
    assert "studentised bootstrap interval" in more.method
    assert "Student t" not in more.method
    assert "bound" not in more.method
    assert MIN_STUDENTISED == 6


def test_the_interval_of_few_pairs_is_of_the_length_that_students_is() -> None:
    # Two equal differences among four leave the bootstrap without a bound. One outlier among five moves a bound beyond
    # the largest possible difference of two accuracies.
    four, five = [0.01, 0.01, 0.02, 0.03], [-0.79, -0.70, -0.71, -0.72, -0.38]
    for differences in (four, five):
        found = paired_difference(differences, np.zeros(len(differences)))
        assert found.high - found.low < 6 * np.std(differences, ddof=1)


@pytest.mark.study
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("n", [6, 8, 16])
def test_the_bootstraps_bounds_are_finite_where_no_differences_are_equal(n: int, skewed: bool) -> None:
    generator = np.random.default_rng(14)
    for _ in range(STUDIES):
        found = paired_difference(generator.exponential(size=n) if skewed else generator.normal(size=n), np.zeros(n))
        assert math.isfinite(found.low)
        assert math.isfinite(found.high)


@pytest.mark.parametrize(("sign", "missing"), [(1, "lower"), (-1, "upper")])
def test_a_bound_that_there_is_not_is_named(sign: int, missing: str) -> None:
    # One resample in eleven contains only the four equal values, which lie on one side of the mean.
    found = paired_difference(sign * np.array([0.02, 0.02, 0.02, 0.02, 0.01, 0.015]), np.zeros(6))
    assert math.isinf(found.low) == (missing == "lower")
    assert math.isinf(found.high) == (missing == "upper")
    assert f"4000 resamples, no {missing} bound: too many of the differences are equal; exact" in found.method


def test_an_interval_is_cut_to_what_is_possible_and_says_so() -> None:
    mean = mean_interval([0.97, 0.99])
    cut = within_range(mean, 0.0, 1.0)
    assert mean.high > 1
    assert (cut.value, cut.low, cut.high, cut.n) == (mean.value, mean.low, 1.0, 2)
    assert cut.method == "mean, Student t interval, 0.95, cut to the possible range, 0 to 1"
    difference = Estimate(0.1, -math.inf, 0.2, 6, "difference, an interval; a test", 0.03)
    within = within_range(difference, -1.0, 1.0)
    assert (within.value, within.low, within.high, within.p_value) == (0.1, -1.0, 0.2, 0.03)
    assert within.method == "difference, an interval, cut to the possible range, −1 to 1; a test"


@pytest.mark.parametrize("estimate", [mean_interval([0.5, 0.6, 0.55]), mean_interval([0.5]), mean_interval([])])
def test_an_interval_that_is_possible_or_missing_stays_as_it_is(estimate: Estimate) -> None:
    assert within_range(estimate, 0.0, 1.0) is estimate


def test_the_permutation_test_rejects_a_true_null_no_more_often_than_its_level() -> None:
    generator = np.random.default_rng(8)
    p_values = [paired_difference(*generator.normal(size=(2, 8))).p_value or 0.0 for _ in range(STUDIES)]
    # The test is exact, so at most 0.05 in expectation. 0.09 is more than two standard errors above.
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09


def test_equal_differences_have_no_interval_and_no_pairs_no_estimate() -> None:
    same = paired_difference([0.3, 0.4, 0.5, 0.6], [0.2, 0.3, 0.4, 0.5])
    assert same.value == pytest.approx(0.1)
    assert math.isnan(same.low)
    assert "all differences are equal" in same.method
    assert math.isnan(paired_difference([math.nan], [1.0]).value)


@pytest.mark.study
def test_mediation_splits_a_planted_chain_into_its_coefficients() -> None:
    generator = np.random.default_rng(9)
    treatment, held = generator.normal(size=(2, 2000))
    mediator = 2 * treatment + held + 0.5 * generator.normal(size=2000)
    outcome = 0.5 * treatment + 3 * mediator - held + 0.5 * generator.normal(size=2000)
    found = mediation(treatment, mediator, outcome, held)
    assert holds(found.direct, 0.5)
    assert holds(found.indirect, 6.0)
    assert holds(found.total, 6.5)
    assert found.total.value == pytest.approx(found.direct.value + found.indirect.value)


def test_mediation_is_the_product_of_two_least_squares_fits() -> None:
    generator = np.random.default_rng(10)
    t, m, y, c = generator.normal(size=(4, 30)) * np.array([[1e-3], [200.0], [1.0], [5.0]])
    ones = np.ones(30)
    a = np.linalg.lstsq(np.column_stack([t, c, ones]), m)[0][0]
    direct, b, *_ = np.linalg.lstsq(np.column_stack([t, m, c, ones]), y)[0]
    found = mediation(t, m, y, c)
    assert (found.direct.value, found.indirect.value) == pytest.approx((direct, a * b))


@pytest.mark.study
def test_no_mediation_is_found_where_the_mediator_does_not_act() -> None:
    generator = np.random.default_rng(13)
    false_alarms = 0
    for _ in range(STUDIES):
        treatment = generator.normal(size=30)
        mediator = treatment + generator.normal(size=30)
        false_alarms += not holds(mediation(treatment, mediator, treatment + generator.normal(size=30)).indirect, 0)
    assert false_alarms / STUDIES < 0.1


def test_a_treatment_that_does_not_vary_has_no_effect_to_split() -> None:
    found = mediation(np.ones(10), np.arange(10.0), np.arange(10.0))
    assert all(math.isnan(part.value) for part in found)


def test_a_mediator_that_does_not_vary_leaves_the_total_effect() -> None:
    found = mediation(np.arange(10.0), np.ones(10), 2 * np.arange(10.0))
    assert found.total.value == pytest.approx(2.0)
    assert math.isnan(found.indirect.value)


def test_holms_correction_is_the_one_by_hand_and_leaves_what_is_missing_out() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.5, math.nan, 0.02])
    assert corrected[0] == 0.5
    assert math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.04)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_keeps_the_order_and_lies_between_none_and_bonferronis(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p_value, own in zip(p_values, corrected, strict=True):
        assert p_value <= own <= min(1.0, len(p_values) * p_value) + 1e-12
    assert [corrected[i] for i in sorted(range(len(p_values)), key=p_values.__getitem__)] == sorted(corrected)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_mean_interval_covers_the_truth_as_often_as_it_says_also_where_it_is_cut(n: int) -> None:
    """2,000 simulated configs each (standard error 0.005): normal scores, and accuracies close to 1."""
    generator = np.random.default_rng(n)
    plain = [mean_interval(each) for each in generator.normal(0.8, 0.01, (2000, n))]
    assert np.mean([each.low < 0.8 < each.high for each in plain]) == pytest.approx(0.95, abs=0.016)
    # Accuracies on 500 samples with mean 0.99: the distribution is skewed, and the interval is cut at 1.
    near = [
        within_range(mean_interval(each), 0.0, 1.0)
        for each in generator.binomial(500, 0.99, (2000, n)).astype(float) / 500
    ]
    kept = [each for each in near if each.high > each.low]  # equal counts give an interval of length 0
    assert np.mean([each.low < 0.99 < each.high for each in kept]) == pytest.approx(0.95, abs=0.025)


@pytest.mark.slow
def test_holms_correction_keeps_the_level_of_all_comparisons_with_one_baseline() -> None:
    """2,000 simulated studies of eight methods on ten seeds, three of which differ (standard error 0.005)."""
    generator = np.random.default_rng(11)
    false, single, found = [], [], []
    for _ in range(2000):
        baseline = generator.normal(size=10)
        shifts = np.array([1.5, -1.5, 1.5, 0, 0, 0, 0, 0])
        differences = shifts[:, None] + generator.normal(size=(8, 10)) - baseline
        p_values = stats.ttest_1samp(differences, 0, axis=1).pvalue
        corrected = np.array(holm(p_values.tolist()))
        false.append((corrected[3:] <= 0.05).any())
        single.append((p_values[3:] <= 0.05).any())
        found.append((corrected[:3] <= 0.05).mean())
    assert np.mean(false) < 0.05
    assert np.mean(single) > 0.12  # the error rate without the correction
    assert np.mean(found) > 0.4


def test_methods_below_a_table_are_named_once_also_where_some_intervals_are_cut() -> None:
    plain = mean_interval([0.5, 0.6, 0.7])
    cut = within_range(mean_interval([0.95, 0.99, 1.0]), 0.0, 1.0)
    assert "cut to" in cut.method
    assert interval_methods([plain.method, plain.method]) == [plain.method]
    assert interval_methods([cut.method]) == [cut.method]
    both = interval_methods([cut.method, plain.method])
    assert both == ["mean, Student t interval, 0.95, some cut to the possible range, 0 to 1"]
    tested = [f"paired, 0.95{part}; sign flips" for part in ("", ", cut to the possible range, −1 to 1")]
    assert interval_methods(tested) == ["paired, 0.95, some cut to the possible range, −1 to 1; sign flips"]


def test_an_estimate_is_valid_json_also_without_an_interval() -> None:
    found = mean_interval([0.25])
    assert json.loads(json.dumps(found.as_json(), allow_nan=False)) == {
        "value": 0.25, "low": None, "high": None, "n": 1, "method": found.method
    }  # fmt: skip
    assert mean_interval([0.5, 0.7]).as_json()["value"] == pytest.approx(0.6)
