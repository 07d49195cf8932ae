"""Collapsed seeds are counted. Their configs are described by a share of collapses and a trimmed mean."""

import numpy as np
import pytest
from scipy import stats

from analysis.questions.collapse import collapse_warning, collapses
from analysis.questions.constant import split_warnings
from analysis.reading.trials import EXAMPLES, compare_methods, trial_scores
from analysis.report.folder import read_folder
from analysis.statistics.trimmed import trimmed_mean
from tests.analysis.synthetic import trial, trials_table

GOOD = (0.80, 0.81, 0.82, 0.83, 0.84)
MIXED = (0.10, 0.79, 0.80, 0.82, 0.83)


def study(scores: dict[str, tuple[float, ...]], **changes: object) -> object:
    """Return the trials of a control per method with these scores."""
    return trials_table([
        trial(10 * number + replicate, stage="control", method=method, config_id=method, replicate=replicate,
              **{"val/accuracy": score, "adapter": False} | changes)
        for number, (method, own) in enumerate(scores.items()) for replicate, score in enumerate(own, start=1)
    ])  # fmt: skip


def test_a_seed_below_halfway_from_a_constant_answer_has_collapsed() -> None:
    (found,) = collapses(study({"kd": GOOD, "ttm": MIXED}, **{"data/val_constant_score": 0.1}), "validation")
    assert (found.config_id, found.collapsed, found.share.n) == ("ttm", 1, 5)
    assert found.floor == pytest.approx((0.1 + 0.815) / 2)
    assert found.trimmed == trimmed_mean(MIXED)
    interval = stats.binomtest(1, 5).proportion_ci(0.95, method="wilson")
    assert (found.share.low, found.share.high) == pytest.approx((interval.low, interval.high))


def test_a_warning_names_share_and_trimmed_mean_and_goes_with_the_others_of_a_split() -> None:
    trials = study({"kd": GOOD, "ttm": MIXED})
    warning = collapse_warning(trials, "validation", {"kd": "kd", "ttm": "ttm"})
    assert warning is not None
    # The trials have no recorded score of a constant answer, so 0 takes its place.
    assert warning.startswith(
        "Collapsed seeds on the validation split (below 0.407, halfway from a constant answer to the median accuracy): "
        "ttm 1 of 5 seeds (4% to 62% of seeds; trimmed mean 0.803 ["
    )
    assert warning in split_warnings(trials, compare_methods(trials), None)
    assert collapse_warning(trials, "validation", {"kd": "kd"}) is None


def test_no_collapse_is_seen_in_even_scores_or_where_the_study_is_at_a_constant_answer() -> None:
    assert collapses(study({"kd": GOOD}), "validation") == []
    assert collapses(study({"kd": (0.5, 0.55, 0.56)}, **{"data/val_constant_score": 0.55}), "validation") == []
    assert collapses(study({}), "validation") == []


def test_the_shipped_comparison_at_published_settings_names_ttm() -> None:
    shipped = read_folder(EXAMPLES / "fashion-method")
    trials, confirmed = shipped.records.trials, shipped.confirmation()
    (found,) = collapses(trials, "test")
    ttm = [score for score, method, stage in zip(trial_scores(trials, "test"), trials["method"].to_pylist(),
           trials["stage"].to_pylist(), strict=True) if method == "ttm" and stage == "confirm"]  # fmt: skip
    assert found.collapsed == sum(score < found.floor for score in ttm) == 5
    (warning,) = [each for each in split_warnings(trials, [], confirmed) if each.startswith("Collapsed")]
    assert "ttm 5 of 5 seeds" in warning


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_share_of_collapsed_seeds_is_covered_and_no_other_config_is_named(share: float) -> None:
    """150 simulated studies of four configs on ten seeds (standard error of a coverage 0.022).

    By the binomial distribution, Wilson's interval of ten seeds covers shares of 0.1 and 0.3 in 0.93 and 0.92 of
    studies. A study without a collapsed seed names no config. With no collapse, the interval would end at 0.28.
    """
    generator = np.random.default_rng(5)
    covered, wrong = [], []
    for _ in range(150):
        lost = generator.random(10) < share
        scores = {name: tuple(generator.normal(0.8, 0.01, 10)) for name in ("kd", "ce", "dkd")}
        scores["ttm"] = tuple(np.where(lost, 0.1, generator.normal(0.8, 0.01, 10)))
        found = {each.config_id: each for each in collapses(study(scores), "validation")}
        wrong.append(bool(found.keys() - {"ttm"}))
        assert ("ttm" in found) == bool(lost.any())
        covered.append(found["ttm"].share.low <= share <= found["ttm"].share.high if "ttm" in found else share < 0.28)
    assert not any(wrong)
    intervals = [stats.binomtest(k, 10).proportion_ci(0.95, method="wilson") for k in range(11)]
    exact = sum(stats.binom.pmf(k, 10, share) for k, each in enumerate(intervals) if each.low <= share <= each.high)
    assert exact == pytest.approx(0.93 if share == 0.1 else 0.92, abs=0.005)
    assert np.mean(covered) == pytest.approx(exact, abs=0.06)
