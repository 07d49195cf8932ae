"""Importances and range warnings: planted effects rank first, and absent effects are not found."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.questions import importance
from analysis.questions.importance import importances, range_warnings
from analysis.reading.trials import EXAMPLE, StudyRecords, open_study
from search_spaces import SPACES
from search_spaces.space import Parameter
from tests.analysis.planted import measured, records
from tests.analysis.synthetic import trial

pytestmark = pytest.mark.study

WIDTH, RATE = (next(p for p in SPACES["joint"].parameters if p.name == name)
               for name in ("adapter_width", "adapter_learning_rate"))  # fmt: skip
KIND = next(p for p in SPACES["joint"].parameters if p.name == "adapter_kind")
DIMENSIONS = (WIDTH, RATE, KIND)
EVALUATORS = ("PED-ANOVA", "fANOVA")


def study(
    generator: np.random.Generator, configs: int, *, of_width: float = 0.0, of_kind: float = 0.0, best: float = 1.0
) -> StudyRecords:
    """Return a search with planted effects on accuracy.

    Accuracy falls with the distance of the width from `best` (0 to 1 of the range of widths) and depends on the kind.
    """
    rows: list[dict[str, Any]] = []
    for number in range(configs):
        place, of_rate = generator.uniform(size=2)
        kind = generator.choice(KIND.choices)
        accuracy = -of_width * abs(place - best) + of_kind * (kind == "serial") + 0.05 * generator.normal()
        varied = {"adapter_width": round(2 ** (1 + 7 * place)), "adapter_kind": str(kind)}
        varied["adapter_learning_rate"] = float(0.0005 * 200**of_rate)
        rows.append(trial(number, epochs=1, **varied, **measured(0.0, accuracy)))
    return records(rows)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_what_was_planted_ranks_first_and_is_told_from_nothing(evaluator):
    found = importances(study(np.random.default_rng(1), 40, of_width=1.0), DIMENSIONS, evaluator, draws=12)
    assert found[0].parameter == "adapter_width"
    assert found[0].estimate.p_value == pytest.approx(1 / 13)
    assert found[0].first > 0.8
    assert found[0].estimate.value > 2 * found[1].estimate.value
    assert sum(each.estimate.value for each in found) == pytest.approx(1.0)
    assert all(each.estimate.n == 40 and each.evidence == "exploratory" for each in found)
    assert evaluator in found[0].estimate.method


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_choice_by_name_can_be_what_matters(evaluator):
    found = importances(study(np.random.default_rng(2), 40, of_kind=1.0), DIMENSIONS, evaluator, draws=6)
    assert found[0].parameter == "adapter_kind"


def test_where_nothing_matters_a_parameter_is_found_no_more_often_than_the_level():
    generator = np.random.default_rng(3)
    p_values = [
        each.estimate.p_value
        for _ in range(15)
        for each in importances(study(generator, 24), DIMENSIONS, "PED-ANOVA", draws=19)
    ]
    # 45 p-values, three per study. The limit is 0.05 plus three standard errors of 0.033.
    assert len(p_values) == 45
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_same_seed_gives_the_same_numbers(evaluator):
    given = study(np.random.default_rng(4), 20, of_width=0.2)
    first, again, other = (importances(given, DIMENSIONS, evaluator, seed=seed, draws=5) for seed in (1, 1, 2))
    assert first == again
    assert [each.estimate.low for each in first] != [each.estimate.low for each in other]


def test_an_interval_holds_its_share_and_what_searches_without_end_have():
    planted = {"of_width": 1.0}
    # PED-ANOVA's top quantile is the best tenth for 50 configs and for 20,000.
    endless = importances(study(np.random.default_rng(11), 20_000, **planted), DIMENSIONS, "PED-ANOVA", draws=2)
    limit = {each.parameter: each.estimate.value for each in endless}
    assert limit["adapter_width"] > 0.99
    generator = np.random.default_rng(12)
    held = []
    for _ in range(20):
        for each in importances(study(generator, 50, **planted), DIMENSIONS, "PED-ANOVA", draws=25):
            assert 0 <= each.estimate.low <= each.estimate.value <= each.estimate.high <= 1
            held.append(each.estimate.low <= limit[each.parameter] <= each.estimate.high)
    # Measured coverage is 0.96 to 1 (see `importances`). 20 studies have three correlated shares each, equivalent to
    # about 30 independent ones; 0.85 is three standard errors below 0.96 for 30. The percentile bootstrap covered none.
    assert np.mean(held) >= 0.85


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_noise_gives_wide_intervals_that_hold_their_shares(evaluator):
    generator = np.random.default_rng(13)
    for _ in range(4):
        found = importances(study(generator, 16), DIMENSIONS, evaluator, draws=8)
        assert all(0 <= each.estimate.low <= each.estimate.value <= each.estimate.high <= 1 for each in found)
        assert max(each.estimate.high - each.estimate.low for each in found) > 0.2
        assert "delete-half jackknife over configs" in found[0].estimate.method


def test_halves_that_define_no_share_give_no_interval():
    low, high = importance._intervals(np.array([0.5, 0.5]), np.array([[0.4, 0.6]]), 12)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_the_standard_error_of_halves_is_that_of_a_mean():
    generator = np.random.default_rng(14)
    values = generator.normal(size=41)
    means = np.array([[values[generator.permutation(41)[:20]].mean() / 100] for _ in range(4000)])
    low, high = importance._intervals(np.array([0.5]), means, 41)
    expected = 2 * stats.t.ppf(0.975, 40) * stats.sem(values) / 100
    assert float(high[0] - low[0]) == pytest.approx(expected, rel=0.05)


def test_trials_that_were_stopped_early_count():
    rows = study(np.random.default_rng(5), 20, of_width=1.0).trials.to_pylist()
    for row in rows[:12]:
        row["status"] = "pruned"
    found = importances(records(rows), DIMENSIONS, "PED-ANOVA", draws=8)
    assert found[0].estimate.n == 20


def test_few_configs_or_equal_ones_have_no_importances():
    assert importances(study(np.random.default_rng(6), 9, of_width=1.0), DIMENSIONS, "PED-ANOVA") == []
    rows = [trial(number, adapter_width=2 + number, epochs=1, **measured(0.0, 0.5)) for number in range(12)]
    assert importances(records(rows), DIMENSIONS, "fANOVA") == []


def test_a_config_beyond_the_bounds_is_refused_by_its_value():
    narrow = Parameter(
        name="adapter_width", kind="int", role="scientific", why="asked", value=4, low=2, high=8, log=True
    )
    with pytest.raises(ValueError, match=r"a config has adapter_width \d+, outside of.*give the bounds"):
        importances(study(np.random.default_rng(7), 20), [narrow], "PED-ANOVA")


@pytest.mark.parametrize(("best", "end", "bound"), [(0.0, "low", "2"), (1.0, "high", "256")])
def test_an_optimum_at_a_bound_is_warned_of(best, end, bound):
    (warning,) = range_warnings(study(np.random.default_rng(8), 40, of_width=1.0, best=best), DIMENSIONS)
    assert (warning.parameter, warning.end) == ("adapter_width", end)
    assert f"of 40 configs crowd at its {end} bound {bound}" in warning.message
    assert "in logarithms" in warning.message


def test_an_optimum_inside_is_not_warned_of():
    for seed in range(10):
        found = range_warnings(study(np.random.default_rng(seed), 30, of_width=1.0, best=0.5), [WIDTH])
        assert found == []


def test_where_nothing_matters_a_range_is_warned_of_as_seldom_as_is_said():
    generator = np.random.default_rng(9)
    warned = {n: sum(bool(range_warnings(study(generator, n), [RATE])) for _ in range(100)) for n in (12, 25)}
    # 8.6% and 2.8% of 100, plus three standard errors of 2.8 and 1.7 points.
    assert warned[12] <= 100 * (0.086 + 0.084)
    assert warned[25] <= 100 * (0.028 + 0.051)


def test_few_configs_are_not_warned_of():
    assert range_warnings(study(np.random.default_rng(10), 9, of_width=1.0), DIMENSIONS) == []


def test_the_shipped_example_is_looked_at_with_the_bounds_of_its_space():
    found = importances(open_study(EXAMPLE), SPACES["adapter_width"].parameters, "PED-ANOVA", draws=20)
    assert {each.parameter for each in found} == {"adapter_width", "adapter_learning_rate"}
    assert found[0].estimate.n == 16
    assert "the best 31% against all" in found[0].estimate.method
