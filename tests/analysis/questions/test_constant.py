"""Warnings about small splits and about students that score no better than a constant answer."""

import pytest

from analysis.questions.confirmation import summarise_confirmation
from analysis.questions.constant import split_warnings
from analysis.reading.trials import compare_methods, summarise_configs
from tests.analysis.synthetic import trial, trials_table

FACTS = {"data/val_samples": 60.0, "data/val_constant_score": 0.55}
TEST = {"data/test_samples": 200.0, "data/test_constant_score": 0.5}


def controls(scores, **changes):
    """Return two seeds of each control with these scores."""
    return [
        trial(10 * number + replicate, stage="control", method=method, config_id=method, name=f"{method}-s{replicate}",
              replicate=replicate, **{"val/accuracy": score, "adapter": False} | changes)
        for number, (method, score) in enumerate(scores.items()) for replicate in (1, 2)
    ]  # fmt: skip


def warned(rows, chosen=None):
    trials = trials_table(rows)
    confirmed = None if chosen is None else summarise_confirmation(trials, chosen, baseline=None)
    return split_warnings(trials, summarise_configs(trials), confirmed)


def test_a_split_of_which_one_sample_is_more_than_a_point_is_warned_of():
    scores = {"ce": 0.8, "kd": 0.9}
    (small,) = warned(controls(scores, **FACTS))
    assert small.startswith("The validation split has 60 images: one of them is worth 1.7 points of accuracy")
    assert len(warned(controls(scores, **FACTS | {"data/val_samples": 99.0}))) == 1
    assert warned(controls(scores, **FACTS | {"data/val_samples": 100.0})) == []


def test_students_at_or_below_the_largest_classs_share_are_named():
    rows = controls({"ce": 0.55, "kd": 0.5, "dkd": 0.56}, **FACTS | {"data/val_samples": 2_000.0})
    (warning,) = warned(rows)
    assert warning == (
        "Not above a constant answer on the validation split, where the share of its largest class is 0.550 "
        "(n = 2,000 images): ce 0.550; kd 0.500."
    )
    assert warned(controls({"ce": 0.56}, **FACTS | {"data/val_samples": 2_000.0})) == []


def test_a_confirmed_config_is_measured_against_the_test_split_too():
    facts = {**FACTS, **TEST, "data/val_samples": 500.0}
    rows = controls({"kd": 0.8}, **facts)
    for number, (config_id, test) in enumerate((("chosen", 0.45), ("kd", 0.7))):
        rows += [
            trial(50 + 10 * number + seed, stage="confirm", config_id=config_id, replicate=seed, **facts,
                  **{"val/accuracy": 0.8, "test/accuracy": test})
            for seed in (3, 4)
        ]  # fmt: skip
    blank = {"winner": False, "bound": None, "search_score": None}
    chosen = [
        {"config_id": "chosen", "label": "w16", "rank": 1, "control": None, **blank},
        {"config_id": "kd", "label": "kd", "rank": None, "control": "kd", **blank},
    ]
    (warning,) = warned(rows, chosen)
    assert warning.startswith("Not above a constant answer on the test split, where the share of its largest class")
    assert warning.endswith("is 0.500 (n = 200 images): w16 0.450.")


@pytest.mark.parametrize(
    ("dataset", "measure", "constant", "words"),
    [("glue:mrpc", "val/f1", 0.81, "the F1 of one class for all"),
     ("glue:cola", "val/matthews", 0.0, "the Matthews correlation of one class for all")],
)  # fmt: skip
def test_a_task_with_another_objective_is_measured_by_that(dataset, measure, constant, words):
    facts = {"data/val_samples": 400.0, "data/val_constant_score": constant}
    rows = controls({"ce": 0.99}, dataset=dataset, **facts, **{measure: constant})
    (warning,) = warned(rows)
    assert f"where {words} is {constant:.3f} (n = 400 sentences): ce {constant:.3f}." in warning


def test_nothing_is_said_of_records_of_an_earlier_version_and_a_comparison_is_judged_as_a_search_is():
    assert warned(controls({"ce": 0.1, "kd": 0.1})) == []
    trials = trials_table(controls({"ce": 0.1, "kd": 0.9}, **FACTS | {"data/val_samples": 500.0}))
    (warning,) = split_warnings(trials, compare_methods(trials), None)
    assert warning.endswith(": ce 0.100.")
    assert split_warnings(trials_table([]), [], None) == []
