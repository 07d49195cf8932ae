"""Intervals over teachers and seeds, with planted effects of both."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import nested
from analysis.statistics.estimates import mean_interval
from analysis.statistics.nested import nested_mean, student_quantile, two_shares, variance_share

PAGE = (Path(__file__).parents[3] / "docs" / "how_to" / "confirmation.md").read_text(encoding="utf-8")
# Coverage by number of teachers and share of variance, for the interval over teachers, over seeds, and the bootstrap.
DOCUMENTED = {
    (int(cells[0]), float(cells[1])): [float(cell) for cell in cells[2:]]
    for line in PAGE.splitlines()
    if re.match(r"\| \d", line)
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def groups_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


def planted(generator, sizes, share):
    """Return values with mean 0 and variance 1, a share of it between groups."""
    own = generator.normal(size=len(sizes)) * math.sqrt(share)
    return own[groups_of(sizes)] + generator.normal(size=sum(sizes)) * math.sqrt(1 - share)


def test_the_interval_is_students_t_over_the_means_of_the_groups():
    values, groups = [1.0, 3.0, 5.0, 7.0, 6.0, 8.0], ["a", "a", "b", "b", "c", "c"]
    found = nested_mean(values, groups)
    means = np.array([2.0, 6.0, 7.0])
    half = 4.302652729911275 * means.std(ddof=1) / math.sqrt(3)
    assert (found.value, found.n) == (5.0, 3)
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half))
    assert "3 teachers with 2 seeds each" in found.method
    assert "2 df, 6 values" in found.method
    assert student_quantile(2) == pytest.approx(4.302652729911275)
    assert math.isinf(student_quantile(0))


def test_it_is_the_interval_of_the_mixed_model_of_equal_groups():
    """The mean square between groups over N estimates the variance of the mean without estimating a component."""
    generator = np.random.default_rng(1)
    sizes = (4, 4, 4)
    values, groups = planted(generator, sizes, 0.4), groups_of(sizes)
    means = [values[groups == number].mean() for number in range(3)]
    between = sum(4 * (each - values.mean()) ** 2 for each in means) / 2
    half = stats.t.ppf(0.975, 2) * math.sqrt(between / 12)
    found = nested_mean(values, groups)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_one_seed_with_each_teacher_gives_the_usual_interval_of_independent_values():
    values = [0.1, 0.4, 0.2, 0.5]
    found, usual = nested_mean(values, range(4)), mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((usual.value, usual.low, usual.high))
    assert "with 1 seed each" in found.method


def test_one_group_has_no_interval_and_nan_is_dropped():
    found = nested_mean([0.1, 0.2, math.nan], ["a", "a", "b"])
    assert (found.value, found.n) == (pytest.approx(0.15), 1)
    assert math.isnan(found.low)
    assert "no interval for n < 2" in found.method
    assert math.isnan(nested_mean([], []).value)
    with pytest.raises(ValueError, match="equal length"):
        nested_mean([1.0], ["a", "b"])


def test_shares_of_variance_are_those_of_the_analysis_of_variance():
    values, groups = np.array([1.0, 3.0, 5.0, 7.0, 6.0, 8.0]), np.array([0, 0, 1, 1, 2, 2])
    found = variance_share(values, groups)
    ratio = stats.f_oneway(*(values[groups == number] for number in range(3))).statistic
    within = 2.0
    between = (ratio * within - within) / 2  # E[MS between] = within + 2 · between
    assert found.between == pytest.approx(between / (between + within))
    low, high = (ratio / stats.f.ppf(level, 2, 3) for level in (0.975, 0.025))
    assert found.low == max(0.0, pytest.approx((low - 1) / (low + 1), abs=1e-12) if low > 1 else 0.0)
    assert found.high == pytest.approx((high - 1) / (high + 1))
    assert (found.groups, found.n) == (3, 6)


def test_shares_are_nothing_everything_or_unknown():
    apart = variance_share([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1])
    assert (apart.between, apart.high) == (1.0, 1.0)
    alike = variance_share([0.0, 1.0, 0.0, 1.0], [0, 0, 1, 1])
    assert (alike.between, alike.low) == (0.0, 0.0)
    for values, groups in (([1.0, 2.0], [0, 1]), ([1.0, 2.0], [0, 0]), ([0.3] * 4, [0, 0, 1, 1])):
        unknown = variance_share(values, groups)
        assert math.isnan(unknown.between)
        assert ": " in unknown.method


def test_shares_of_groups_in_groups_solve_the_expected_mean_squares():
    """Balanced: 3 groups of 2 inner groups of 4 values. The coefficients are the numbers of values."""
    generator = np.random.default_rng(3)
    table = generator.normal(size=(3, 1, 1)) * 2 + generator.normal(size=(3, 2, 1)) + generator.normal(size=(3, 2, 4))
    outer, inner = np.repeat(range(3), 8).tolist(), np.tile(np.repeat(range(2), 4), 3).tolist()
    found = two_shares(table.ravel(), outer, inner)
    cells, groups = table.mean(axis=2), table.mean(axis=(1, 2))
    within = ((table - cells[..., None]) ** 2).sum() / 18
    of_inner = max(0.0, (4 * ((cells - groups[:, None]) ** 2).sum() / 3 - within) / 4)
    of_outer = max(0.0, (8 * groups.var(ddof=1) - within - 4 * of_inner) / 8)
    total = within + of_inner + of_outer
    assert (found.between, found.inner) == pytest.approx((of_outer / total, of_inner / total))
    assert math.isnan(found.low)
    assert (found.groups, found.n) == (3, 24)
    shuffled = generator.permutation(24)
    values = [*table.ravel()[shuffled], math.nan]
    again = two_shares(values, [*np.array(outer)[shuffled], 0], [*np.array(inner)[shuffled], 0])
    assert (again.between, again.inner) == pytest.approx((found.between, found.inner))


def test_with_one_inner_group_in_each_group_the_two_cannot_be_told_apart():
    values, groups = [1.0, 3.0, 5.0, 7.0, 6.0, 8.0], [0, 0, 1, 1, 2, 2]
    assert two_shares(values, groups, [0] * 6) == variance_share(values, groups)
    assert two_shares(values, groups, [0, 1, 0, 1, 0, 1]) == variance_share(values, groups), "one value in each"
    assert math.isnan(two_shares([0.3] * 8, [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1] * 2).between)


@pytest.mark.slow
def test_estimated_variances_of_groups_in_groups_are_right_on_average_and_only_the_outer_interval_covers():
    """600 simulated studies of 4 splits, 2 teachers per split and 2 seeds per teacher (standard error 0.009)."""
    generator, shares, over_splits, over_teachers = np.random.default_rng(5), [], [], []
    outer, inner = np.repeat(range(4), 4).tolist(), np.tile(np.repeat(range(2), 2), 4).tolist()
    cells = [f"{one} {other}" for one, other in zip(outer, inner, strict=True)]
    for _ in range(600):
        table = 0.7 * generator.normal(size=(4, 1, 1)) + 0.5 * generator.normal(size=(4, 2, 1))
        values = (table + 0.5 * generator.normal(size=(4, 2, 2))).ravel()
        found = two_shares(values, outer, inner)
        shares.append((found.between, found.inner))
        for coverages, groups in ((over_splits, outer), (over_teachers, cells)):
            interval = nested_mean(values, groups)
            coverages.append(interval.low <= 0 <= interval.high)
    assert np.median(shares, axis=0) == pytest.approx([0.49 / 0.99, 0.25 / 0.99], abs=0.12)
    assert 0.92 <= np.mean(over_splits) <= 0.98
    assert np.mean(over_teachers) < 0.90


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("sizes", [(6, 6), (4, 4, 4), (2,) * 6, (1, 4, 7)])
def test_it_covers_the_mean_of_all_teachers_where_an_interval_over_seeds_does_not(sizes, share):
    """1,000 simulated studies each (standard error of a coverage 0.007)."""
    generator, groups = np.random.default_rng(len(sizes)), groups_of(sizes)
    covers, naive, resampled, shares = [], [], [], []
    for _ in range(1000):
        values = planted(generator, sizes, share)
        found, usual = nested_mean(values, groups), mean_interval(values)
        covers.append(found.low <= 0 <= found.high)
        naive.append(usual.low <= 0 <= usual.high)
        means = np.bincount(groups, weights=values) / np.bincount(groups)
        drawn = means[generator.integers(0, len(means), (200, len(means)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        resampled.append(low <= 0 <= high)
        own = variance_share(values, groups)
        shares.append(own.low <= share <= own.high)
    # With groups of very unequal size, the group means have unequal variances if teachers are equal.
    assert (0.93 if sizes != (1, 4, 7) else 0.91) <= np.mean(covers) <= 0.97
    assert np.mean(resampled) < 0.90
    assert 0.92 <= np.mean(shares) <= 0.99
    if share == 0.5:
        assert np.mean(naive) < 0.91
    if sizes != (1, 4, 7):
        found = [np.mean(covers), np.mean(naive), np.mean(resampled)]
        assert found == pytest.approx(DOCUMENTED[len(sizes), share], abs=0.04)


def test_the_page_and_the_module_show_the_same_coverage():
    rows = re.findall(r"^ {4}(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", nested.__doc__, flags=re.MULTILINE)
    assert {(int(row[0]), float(row[1])): [float(cell) for cell in row[2:]] for row in rows} == DOCUMENTED
    assert len(DOCUMENTED) == 6
