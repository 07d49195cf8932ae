"""Estimates in words: a phrase never claims more than interval and test support."""

import math

import pytest

from analysis.questions.association import gap_associations
from analysis.questions.confirmation_words import verdict as confirmed_verdict
from analysis.questions.stability import rank_stability
from analysis.reading.trials import EXAMPLE, EXAMPLES, open_study, summarise_configs
from analysis.report.folder import read_folder
from analysis.statistics.estimates import Estimate
from analysis.wording.sentences import (
    association_in_words,
    by_verdict,
    comparisons_in_brief,
    comparisons_in_words,
    confirmed_in_words,
    how_many,
    quoted,
    quoted_points,
    stability_in_words,
    study_in_words,
    verdict,
)
from tests.analysis.planted import records
from tests.analysis.synthetic import trial, trials_table, whole_study


def estimate(value: float, low: float, high: float, p_value: float | None = None) -> Estimate:
    return Estimate(value, low, high, 12, "a method", p_value)


@pytest.mark.parametrize(
    ("given", "corrected_p", "said"),
    [
        (estimate(0.5, 0.1, 0.9), None, "up"),
        (estimate(-0.5, -0.9, -0.1), None, "down"),
        (estimate(0.5, -0.1, 0.9), None, "open"),
        # Interval and test both have to be clear.
        (estimate(-0.5, -0.9, -0.1, 0.2), None, "open"),
        (estimate(0.5, -0.1, 0.9, 0.01), None, "open"),
        (estimate(-0.5, -0.9, -0.1, 0.01), 0.3, "open"),
        (estimate(-0.5, -0.9, -0.1, 0.01), 0.03, "down"),
        (estimate(0.5, math.nan, math.nan, 0.01), None, "undefined"),
        (estimate(math.nan, math.nan, math.nan), None, "undefined"),
    ],
)
def test_a_sign_is_clear_only_where_interval_and_test_say_so(
    given: Estimate, corrected_p: float | None, said: str
) -> None:
    assert verdict(given, corrected_p) == said
    phrases = {"up": "rises", "down": "falls", "unsure": "open", "undefined": "undefined"}
    said_as = {"up": "rises", "down": "falls"}.get(said, said)
    assert by_verdict(given, **phrases, corrected_p=corrected_p) == said_as


def test_an_estimate_is_quoted_with_sign_interval_p_and_n() -> None:
    assert quoted(estimate(-0.678, -0.905, -0.035)) == "−0.68 (95% interval −0.91 to −0.04, n = 12)"
    assert quoted(estimate(0.5, 0.1, 0.9, 0.012)) == "+0.50 (95% interval +0.10 to +0.90, p = 0.012, n = 12)"
    assert "p = 0.036 after Holm's correction" in quoted(estimate(0.5, 0.1, 0.9, 0.012), corrected_p=0.036)
    assert quoted(estimate(0.5, math.nan, math.nan)) == "+0.50 (no interval, n = 12)"
    assert quoted(estimate(math.nan, math.nan, math.nan)) == "undefined (n = 12)"
    assert quoted_points(estimate(-0.0091, -0.0139, -0.0001)) == "−0.9 points (95% interval −1.4 to 0.0, n = 12)"


def test_few_are_counted_in_words() -> None:
    assert [how_many(n) for n in range(3)] == ["none is", "one is", "2 are"]


def test_a_study_is_described_by_what_it_recorded() -> None:
    said = study_in_words(open_study(EXAMPLE).trials, "mine")
    assert said.startswith("**mine**: student cnn_8_16 and teacher cnn_32_64 on fashion_mnist, 8 epochs per trial.")
    assert "The search trained 16 configs once each and varied adapter_width and adapter_learning_rate." in said
    assert "2 promising configs ran on 6 fresh seeds (12 trials). 2 controls ran on 6 fresh seeds (12 trials)." in said


def test_a_search_alone_with_early_stops_is_described_as_such() -> None:
    said = study_in_words(trials_table([trial(0), trial(1, status="pruned", adapter_width=4)]), "s")
    assert "1 stopped early and 0 failed" in said
    assert said.endswith("No config was repeated on fresh seeds, so no result here is confirmed.")


def test_an_association_is_named_by_its_level_its_configs_and_what_is_held() -> None:
    found = [association_in_words(each) for each in gap_associations(open_study(EXAMPLE)) if each.gap == "paper"]
    assert found == [
        "between searched configs",
        "between searched configs, adapter_learning_rate held",
        "between searched configs, adapter_width and adapter_learning_rate held",
        "between repeated configs",
        "between repeated configs, adapter_learning_rate held",
        "between repeated configs, adapter_width and adapter_learning_rate held",
        "within repeated configs",
    ]


def test_comparisons_say_where_so_few_seeds_cannot_settle_them() -> None:
    said = comparisons_in_words(summarise_configs(open_study(EXAMPLE).trials))
    assert said.count("not distinguishable from kd.") == 1
    assert "- w31-T4.0 (adapter_width 31, adapter_learning_rate 0.0447): −0.9 points" in said
    assert said.count("the interval lies below 0, but the corrected test is not significant.") == 1
    assert "the p-value of the exact test of 6 pairs cannot fall below 0.031, nor below 0.062 once corrected" in said


def test_where_methods_are_compared_each_is_named_by_its_method() -> None:
    said = comparisons_in_words(summarise_configs(open_study(EXAMPLE).trials), controls=True)
    assert "- ce: −0.9 points" in said
    assert "- pesf_kd, w31-T4.0 (adapter_width 31" in said


def test_in_brief_that_is_said_as_well() -> None:
    said = comparisons_in_brief(summarise_configs(open_study(EXAMPLE).trials))
    assert said == (
        "of 2 configs on 6 fresh seeds, none is clearly better than kd and none is clearly worse "
        "(with so few seeds, none could have been clear)"
    )
    assert comparisons_in_brief(summarise_configs(open_study(EXAMPLE).trials), controls=True).startswith("of 3 configs")


def test_comparisons_of_many_seeds_are_settled() -> None:
    trials, _ = whole_study(replicates=10)
    said = comparisons_in_words(summarise_configs(trials))
    assert said.count("; better than kd.") == 3
    assert "No difference could" not in said
    brief = comparisons_in_brief(summarise_configs(trials))
    assert brief == "of 3 configs on 10 fresh seeds, 3 are clearly better than kd and none is clearly worse"


def test_where_nothing_is_compared_that_is_said() -> None:
    assert comparisons_in_words([]).startswith("No config ran on the same fresh seeds as kd")
    assert comparisons_in_brief([]) == "no config ran on the same fresh seeds as kd"


def test_stability_names_the_config_that_is_first_and_is_undefined_for_few() -> None:
    study = open_study(EXAMPLE)
    names = {each.config_id: each.name for each in summarise_configs(study.trials)}
    said = stability_in_words(rank_stability(study), names)
    assert said.startswith("Over 4 configs on 6 fresh seeds, the mean rank correlation between two seeds")
    assert "; kd-T4.0 has the highest mean in 69% of the resamples of seeds." in said
    assert "is undefined for 0 configs on 0 fresh seeds" in stability_in_words(rank_stability(records([trial(0)])), {})


def test_a_study_of_which_no_trial_has_ended_is_refused() -> None:
    with pytest.raises(ValueError, match="no trial of mine has ended yet"):
        study_in_words(trials_table([]), "mine")


def test_a_confirmation_is_told_with_its_verdict_and_one_that_is_not_there_is_asked_for() -> None:
    found = read_folder(EXAMPLES / "sst2-adapter-width").confirmation()
    assert found is not None
    said = confirmed_in_words(found, "sst2-adapter-width")
    assert said.startswith("Confirmed, on the test split:")
    assert len(confirmed_verdict(found)) == 4
    assert all(f"\n\n{line}\n\n" in said for line in confirmed_verdict(found))
    assert "| test accuracy of | minus that of |" in said
    assert "(`python -m study.confirm fashion-joint`)" in confirmed_in_words(None, "fashion-joint")
