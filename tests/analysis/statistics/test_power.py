"""Power of a paired comparison, against SciPy's noncentral t and simulated studies with a planted difference."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.estimates import paired_difference
from analysis.statistics.power import attainable_level, fewest_pairs, least_detectable, paired_power, seeds_needed


def reference(difference, spread, n, level):
    """Return the power of the paired t-test from the noncentral t distribution."""
    bound, shift = stats.t.ppf(1 - level / 2, n - 1), difference / spread * math.sqrt(n)
    return stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)


@pytest.mark.parametrize(("n", "difference"), [(8, 0.4), (10, 1.0), (16, 0.7), (29, 0.55), (54, 0.2), (400, 0.1)])
@pytest.mark.parametrize("tests", [1, 19])
def test_power_is_that_of_the_noncentral_t_distribution(n, difference, tests):
    level = attainable_level(n, tests=tests)
    if not level:
        assert paired_power(difference, 1.0, n, tests=tests) == 0
        return
    assert paired_power(difference, 1.0, n, tests=tests) == pytest.approx(
        reference(difference, 1.0, n, level), abs=2e-4
    )


def test_the_numbers_of_pairs_are_those_of_gpower():
    # G*Power 3.1, difference between two dependent means (matched pairs), two tails, power 0.8.
    assert [seeds_needed(size, 1.0) for size in (0.2, 0.5, 0.8)] == [199, 34, 15]


def test_exact_flips_reach_the_level_only_from_six_pairs_on():
    assert [attainable_level(n) for n in (4, 5, 6, 7)] == [0.0, 0.0, 1 / 32, 3 / 64]
    assert attainable_level(17) == pytest.approx(0.05)
    assert attainable_level(9, tests=19) == 0
    assert attainable_level(10, tests=19) == 1 / 512
    assert [least_detectable(1.0, n) for n in (1, 5)] == [math.inf, math.inf]
    assert seeds_needed(100.0, 1.0) == 6


@pytest.mark.parametrize("n", [6, 8, 10, 30, 100])
def test_the_least_detectable_difference_has_the_wanted_power_and_scales_with_the_spread(n):
    found = least_detectable(1.0, n, power=0.9)
    assert paired_power(found, 1.0, n) == pytest.approx(0.9, abs=1e-6)
    assert least_detectable(0.01, n, power=0.9) == pytest.approx(0.01 * found)
    assert least_detectable(math.nan, n) != least_detectable(math.nan, n)


def test_impossible_requests_are_refused_and_hopeless_ones_have_no_number():
    assert seeds_needed(1e-9, 1.0) is None
    assert seeds_needed(0.01, 0.0) == 6
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match=r"power lies between 0 and 1"):
            seeds_needed(0.1, 1.0, power=wrong)
    with pytest.raises(ValueError, match=r"other than 0"):
        seeds_needed(0.0, 1.0)


@pytest.mark.parametrize(("n", "lost"), [(6, 0.07), (8, 0.04), (10, 0.02), (12, 0.01), (29, 0.01)])
def test_the_planned_seeds_have_the_planned_power_in_simulated_studies(n, lost):
    """2,000 studies per cell, standard error 0.009; exact sign flips of 6 pairs lose 0.07 of the t-test's power."""
    generator, difference = np.random.default_rng(n), least_detectable(1.0, n)
    signs = generator.choice([-1.0, 1.0], size=(1000, n)) if n > 12 else _all_signs(n)

    def rejected(planted):
        draws = generator.normal(planted, 1.0, size=(2000, n))
        own, flipped = np.abs(draws.sum(axis=1, keepdims=True)), np.abs(draws @ signs.T)
        p_values = np.mean(flipped >= own - 1e-12, axis=1)
        if n <= 12:
            assert p_values[0] == pytest.approx(paired_difference(draws[0], np.zeros(n)).p_value)
        return np.mean(p_values <= 0.05 + 1e-12)

    assert 0.8 - lost - 0.03 < rejected(difference) < 0.83
    assert rejected(0.0) < 0.05 + 0.02


def _all_signs(n):
    """Return half of all sign flips. The other half gives sums of the same absolute values."""
    return 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)


@pytest.mark.parametrize("tests", [1, 3, 6, 20, 190])
def test_one_pair_fewer_than_the_fewest_can_show_nothing(tests):
    fewest = fewest_pairs(tests=tests)
    assert 2 / 2**fewest <= 0.05 / tests < 2 / 2 ** (fewest - 1)  # all signs alike, exact in float64
    assert math.isinf(least_detectable(1.0, fewest - 1, tests=tests))
    assert math.isfinite(least_detectable(1.0, fewest, tests=tests))
