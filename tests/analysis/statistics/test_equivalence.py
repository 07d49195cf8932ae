"""Equivalence: two one-sided tests against a reference, and the rate of false claims."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.equivalence import equivalence_p
from analysis.statistics.estimates import Estimate, paired_difference

STUDIES = 400


def test_the_p_value_is_the_larger_one_of_scipys_two_one_sided_tests() -> None:
    differences = np.random.default_rng(0).normal(0.001, 0.004, size=9)
    below = stats.ttest_1samp(differences, -0.005, alternative="greater").pvalue
    above = stats.ttest_1samp(differences, 0.005, alternative="less").pvalue
    assert equivalence_p(differences, 0.005) == pytest.approx(max(below, above))


def test_a_p_value_by_hand() -> None:
    # Mean 0, standard error 1 / √3; t = 2 · √3 = 3.4641 with 2 degrees of freedom.
    assert equivalence_p([-1.0, 0.0, 1.0, math.nan], 2.0) == pytest.approx(0.0370899, abs=1e-6)


@pytest.mark.parametrize("differences", [[], [0.1], [0.2, 0.2, 0.2]])
def test_without_a_spread_there_is_no_test(differences: list[float]) -> None:
    assert math.isnan(equivalence_p(differences, 0.5))
    assert not paired_difference(differences, [0.0] * len(differences), smallest_effect=0.5).is_equivalent()


@pytest.mark.parametrize("effect", [0.0, -0.01, math.nan])
def test_a_smallest_effect_that_is_none_is_refused(effect: float) -> None:
    with pytest.raises(ValueError, match=r"the smallest effect is above 0.*0.005 is half a point"):
        paired_difference([1.0, 2.0], [0.0, 0.0], smallest_effect=effect)


def test_both_the_test_and_the_interval_have_to_say_so() -> None:
    def of(low: float, high: float, p_value: float | None) -> Estimate:
        return Estimate(0.0, low, high, 8, "m", 0.9, smallest_effect=0.005, equivalence_p=p_value)

    assert of(-0.004, 0.004, 0.01).is_equivalent()
    assert not of(-0.004, 0.004, 0.01).is_equivalent(corrected_p=0.06)
    assert not of(-0.006, 0.004, 0.01).is_equivalent()
    assert not of(math.nan, math.nan, 0.01).is_equivalent()
    assert not of(-0.004, 0.004, None).is_equivalent()
    assert not Estimate(0.0, -0.004, 0.004, 8, "m").is_equivalent()


@pytest.mark.parametrize(("n", "true"), [(5, 0.29), (10, 0.80)])
def test_the_tests_have_their_level_at_the_smallest_effect_and_their_power_without_one(n: int, true: float) -> None:
    generator = np.random.default_rng(n)
    for truth, expected in ((1.0, 0.05), (-1.0, 0.05), (0.0, true)):
        drawn = generator.normal(truth, 1.0, size=(STUDIES, n))
        share = np.mean([equivalence_p(each, 1.0) <= 0.05 for each in drawn])
        assert share == pytest.approx(expected, abs=3.2 * math.sqrt(expected * (1 - expected) / STUDIES)), truth


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "skewed", "false", "true"),
    [(5, False, 0.02, 0.15), (10, False, 0.02, 0.55), (5, True, 0.12, 0.31), (10, True, 0.04, 0.51)],
)
def test_equivalence_is_claimed_as_often_as_documented(n: int, skewed: bool, false: float, true: float) -> None:
    generator = np.random.default_rng(3)
    for truth, expected in ((1.0, false), (0.0, true)):
        noise = generator.exponential(size=(STUDIES, n)) - 1 if skewed else generator.normal(size=(STUDIES, n))
        claimed = [paired_difference(truth + each, np.zeros(n), smallest_effect=1.0).is_equivalent() for each in noise]
        error = math.sqrt(expected * (1 - expected) * (1 / STUDIES + 1 / 1000))  # the expected share is simulated too
        assert np.mean(claimed) == pytest.approx(expected, abs=3 * error + 0.005), truth
