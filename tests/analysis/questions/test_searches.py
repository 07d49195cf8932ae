"""Comparison of methods over seeds and searches, with a planted spread between searches."""

import numpy as np
import pytest

from analysis.questions.power import find_resolution
from analysis.questions.searches import compare_over_searches
from analysis.reading.trials import compare_methods
from analysis.statistics.over_searches import between_searches
from tests.analysis.synthetic import trial, trials_table


def planted(generator, *, methods=8, searches=2, seeds=10, between=0.01, seed_noise=0.006, own_noise=0.004):
    """Return the scores (searches, seeds) of each method. All methods are equally good."""
    luck = generator.normal(0, seed_noise, size=seeds)
    return [
        0.8
        + luck
        + generator.normal(0, between, size=(searches, 1))
        + generator.normal(0, own_noise, (searches, seeds))
        for _ in range(methods)
    ]


def as_trials(tables, names):
    """Return the scores as trials, one config per search."""
    rows = []
    for name, table in zip(names, tables, strict=True):
        for number, scores in enumerate(table):
            for replicate, score in enumerate(scores, start=1):
                own = {
                    "config_id": f"{name}{number}",
                    "stage": "replicate",
                    "replicate": replicate,
                    "name": f"{name}-s1",
                }
                rows.append(trial(len(rows), method=name, **own, **{"val/accuracy": float(score)}))
    return trials_table(rows)


def test_a_study_with_one_search_per_method_has_no_such_comparison():
    trials = as_trials(planted(np.random.default_rng(0), methods=2, searches=1), ["kd", "dkd"])
    assert compare_over_searches(trials, 1) is None


def test_the_baseline_of_a_table_is_the_mean_of_its_searches():
    tables = planted(np.random.default_rng(1), methods=2)
    trials = as_trials(tables, ["kd", "dkd"])
    rows = compare_methods(trials)
    assert [row.method for row in rows if row.against_baseline is None] == ["kd", "kd"]
    for row in rows:
        if row.method == "dkd":
            own = tables[1][int(row.config_id[-1])]
            assert row.against_baseline.value == pytest.approx((own - tables[0].mean(axis=0)).mean())
    found = find_resolution(trials, rows, None)
    expected = sorted(float(np.std(own - tables[0].mean(axis=0), ddof=1)) for own in tables[1])
    assert found.spreads == pytest.approx(expected)
    difference = compare_over_searches(trials, 2).differences["dkd"]
    assert difference.value == pytest.approx(tables[1].mean() - tables[0].mean())
    assert difference.n == 10


def test_two_searches_that_found_one_config_differ_by_nothing():
    tables = planted(np.random.default_rng(3), methods=3)
    one = [tables[0][:1], *tables[1:]]
    found, doubled = (compare_over_searches(as_trials(each, ["kd", "dkd", "dist"]), 2) for each in (one, tables))
    assert found.searches == doubled.searches == {"kd": 2, "dkd": 2, "dist": 2}
    assert found.spread.freedom == doubled.spread.freedom == 3
    total = 2 * between_searches(tables[1:]).variance
    assert found.spread.variance == pytest.approx(total / 3)


@pytest.mark.study
def test_intervals_over_searches_cover_the_truth_where_those_over_seeds_do_not():
    """100 simulated studies of eight methods, two searches each (standard error of a coverage 0.012)."""
    generator, names = np.random.default_rng(2), ["kd", "ce", "dkd", "dist", "atkd", "ttm", "wttm", "pkt"]
    covered, naive, variances = [], [], []
    for _ in range(100):
        tables = planted(generator)
        found = compare_over_searches(as_trials(tables, names), 2)
        variances.append(found.spread.variance)
        for name, table in zip(names[1:], tables[1:], strict=True):
            each = found.differences[name]
            covered.append(each.low < 0 < each.high)
            differences = table.mean(axis=0) - tables[0].mean(axis=0)
            naive.append(abs(differences.mean()) < 2.26 * differences.std(ddof=1) / np.sqrt(10))
    assert 0.93 < np.mean(covered) < 0.98
    assert np.mean(naive) < 0.4
    assert np.sqrt(np.mean(variances)) == pytest.approx(0.01, abs=0.0007)
