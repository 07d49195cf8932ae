"""Group-sequential comparisons: published bounds, and simulated error rates and seeds with planted effects."""

import numpy as np
import pytest
from scipy import stats

from analysis.questions.power import find_resolution
from analysis.reading.trials import EXAMPLES, compare_methods
from analysis.report.folder import read_folder
from analysis.statistics.power import seeds_needed
from analysis.statistics.sequential import FIRST_LOOK, plan_looks, spent_levels

pytestmark = pytest.mark.study

SPREAD, DETECT, TESTS = 0.0091, 0.005, 19
FIXED = seeds_needed(DETECT, SPREAD, tests=TESTS)


def simulate(plan, draws):
    """Decide simulated comparisons (R, n) with an independent vectorised rule; return seeds and decisions."""
    studies = len(draws)
    seeds, decisions = np.full(studies, plan.looks[-1]), np.full(studies, "open", dtype=object)
    for number, look in enumerate(plan.looks):
        left, own = decisions == "open", draws[:, :look]
        mean, error = own.mean(axis=1), own.std(axis=1, ddof=1) / np.sqrt(look)
        clear = left & (2 * stats.t.sf(np.abs(mean) / error, look - 1) <= plan.levels[number])
        small = (
            left & ~clear & (stats.t.sf((plan.detect - np.abs(mean)) / error, look - 1) <= plan.small_levels[number])
        )
        decisions[clear & (mean > 0)], decisions[clear & (mean < 0)], decisions[small] = "better", "worse", "small"
        seeds[clear | small] = look
    return seeds, decisions


def test_the_bounds_are_the_published_ones():
    # Lan and DeMets' Pocock-type spending, five equal looks, two-sided 0.05. The values are from the program ld98;
    # Jennison and Turnbull (2000, table 7.2) list similar ones.
    bounds = stats.norm.isf(np.array(spent_levels((0.2, 0.4, 0.6, 0.8, 1.0), 0.05)) / 2)
    np.testing.assert_allclose(bounds, [2.4380, 2.4268, 2.4101, 2.3966, 2.3859], atol=1e-3)
    assert spent_levels((1.0,), 0.05) == pytest.approx((0.05,))


def test_all_looks_together_have_the_level_for_known_variances():
    fractions = (0.1, 0.15, 0.3, 0.6, 1.0)
    levels, generator = spent_levels(fractions, 0.05), np.random.default_rng(3)
    steps = np.sqrt(np.diff((0.0, *fractions)))
    scores = np.cumsum(generator.normal(size=(100_000, 5)) * steps, axis=1) / np.sqrt(fractions)
    assert np.mean(np.any(np.abs(scores) >= stats.norm.isf(np.array(levels) / 2), axis=1)) == pytest.approx(
        0.05, abs=0.0025
    )


def test_the_rule_is_the_one_that_is_simulated():
    plan, generator = plan_looks(DETECT, 40, 3), np.random.default_rng(1)
    draws = generator.normal(0.004, 0.006, size=(200, 40))
    seeds, decisions = simulate(plan, draws)
    for row, n, decision in zip(draws, seeds, decisions, strict=True):
        own = ((look, plan.decide(row[:look], number)) for number, look in enumerate(plan.looks))
        found = next(((look, each) for look, each in own if each is not None), (plan.looks[-1], "open"))
        assert found == (n, decision)


def test_the_looks_end_at_the_largest_number_of_pairs_and_impossible_plans_are_refused():
    assert plan_looks(0.01, 60, 5).looks == (6, 8, 10, 13, 17, 22, 29, 38, 49, 60)
    assert plan_looks(0.01, FIRST_LOOK, 1).looks == (FIRST_LOOK,)
    with pytest.raises(ValueError, match="at least 6 pairs"):
        plan_looks(0.01, 5, 1)
    with pytest.raises(ValueError, match="above 0"):
        plan_looks(0.0, 60, 1)


def test_equal_and_missing_differences_are_decided_without_a_division_by_zero():
    plan = plan_looks(0.005, 60, 1)
    assert plan.decide([0.0] * 6, 0) == "small"
    assert plan.decide([0.01] * 6, 0) == "better"
    assert plan.decide([np.nan] * 6, 0) is None


def test_nineteen_comparisons_with_one_baseline_keep_their_errors_together():
    """1,000 simulated studies without a difference: a false sign in at most 0.05 of them (standard error 0.007)."""
    plan, generator = plan_looks(DETECT, round(1.3 * FIXED), TESTS), np.random.default_rng(5)
    n, wrong = plan.looks[-1], np.zeros(1000, dtype=bool)
    baseline = generator.normal(0, SPREAD / np.sqrt(2), size=(1000, n))
    for _ in range(TESTS):
        _, decisions = simulate(plan, generator.normal(0, SPREAD / np.sqrt(2), size=(1000, n)) - baseline)
        wrong |= (decisions == "better") | (decisions == "worse")
    assert wrong.mean() < 0.05 + 0.015


def test_a_difference_that_matters_is_found_with_the_planned_power_and_seldom_taken_for_a_smaller_one():
    """2,000 simulated comparisons (standard error 0.009). The looks cost 0.02 of the power of a fixed plan."""
    plan, generator = plan_looks(DETECT, round(1.3 * FIXED), TESTS), np.random.default_rng(7)
    seeds, decisions = simulate(plan, generator.normal(DETECT, SPREAD, size=(2000, plan.looks[-1])))
    assert np.mean(decisions == "better") > 0.8 - 0.05
    assert np.mean(decisions == "small") < 0.2 + 0.02
    assert np.mean(decisions == "worse") < 0.005
    assert seeds.mean() < FIXED


def test_the_shipped_differences_take_less_than_half_the_seeds_of_the_fixed_plan():
    """Normal studies with the means and spreads of the shipped comparison; 300 per comparison."""
    study = read_folder(EXAMPLES / "fashion-method-tuned")
    found = find_resolution(study.records.trials, compare_methods(study.records.trials), study.confirmation())
    plan, generator = plan_looks(DETECT, round(1.3 * FIXED), TESTS), np.random.default_rng(9)
    taken = np.array([
        simulate(plan, generator.normal(each.difference.value, each.spread, size=(300, plan.looks[-1])))[0]
        for each in found.compared
    ])  # fmt: skip
    trials = taken.sum(axis=0) + taken.max(axis=0)  # the baseline runs until the last comparison stops
    assert FIXED == 54
    assert trials.mean() < 0.45 * FIXED * (TESTS + 1)
