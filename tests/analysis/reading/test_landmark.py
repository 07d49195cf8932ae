"""Trials included at the landmark. No trial is selected by results after it."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.reading.landmark import GAPS, at_landmark, config_columns, config_means, nuisance_fields
from analysis.reading.trials import numbers, select, trial_scores
from search_spaces import SPACES
from tests.analysis.planted import measured, records
from tests.analysis.synthetic import trial, trials_table


def epochs_of(trial_id: str, accuracies: list[float]) -> list[dict[str, object]]:
    """Return the epochs of a trial with these accuracies."""
    return [
        {"trial_id": trial_id, "epoch": epoch, **measured(10.0 * accuracy, accuracy)}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


def test_without_early_stopping_the_landmark_is_the_last_epoch():
    rows = [trial(number, epochs=3, **measured(1.0, 0.5 + number)) for number in range(4)]
    landmark = at_landmark(records(rows), searched=True)
    assert (landmark.epoch, landmark.trials.num_rows, landmark.evidence) == (3, 4, "exploratory")
    assert landmark.note == "4 trials at epoch 3, their last"
    assert landmark.place == "4 trials at epoch 3"


def test_without_a_trial_the_landmark_says_so():
    landmark = at_landmark(records([trial(0, status="failed")]), searched=True)
    assert (landmark.epoch, landmark.last_epoch, landmark.place) == (0, 0, landmark.note)


def test_stopped_trials_are_in_it_with_all_others_as_they_were_then():
    rows = [trial(0, epochs=3, **measured(9.0, 0.9)), trial(1, epochs=2, status="pruned", **measured(2.0, 0.2))]
    epochs = epochs_of("s-0000", [0.1, 0.3, 0.9]) + epochs_of("s-0001", [0.1, 0.2])
    landmark = at_landmark(records(rows, epochs), searched=True)
    assert landmark.epoch == 2
    assert trial_scores(landmark.trials).tolist() == [0.3, 0.2]
    assert numbers(landmark.trials, "val/sharpness_gap").tolist() == [3.0, 2.0]
    assert "1 were stopped early" in landmark.note
    assert landmark.place == "2 trials at epoch 2 of 3, the last that all reached"
    assert "no survivor is selected" in landmark.note


def test_a_trial_that_failed_is_in_it_if_it_came_that_far_and_counted_if_not():
    rows = [
        trial(0, epochs=3, **measured(1.0, 0.9)),
        trial(1, epochs=2, status="pruned", **measured(1.0, 0.2)),
        trial(2, epochs=2, status="failed"),
        trial(3, epochs=1, status="failed"),
    ]
    epochs = [each for number, count in enumerate((3, 2, 2, 1)) for each in epochs_of(f"s-{number:04d}", [0.5] * count)]
    landmark = at_landmark(records(rows, epochs), searched=True)
    assert landmark.trials["trial_id"].to_pylist() == ["s-0000", "s-0001", "s-0002"]
    assert "1 failed before it" in landmark.note


def test_what_survives_early_stopping_hides_an_association_that_the_landmark_shows():
    generator = np.random.default_rng(0)
    gaps = generator.normal(size=200)
    early = -gaps + 0.5 * generator.normal(size=200)
    goes_on = early > np.quantile(early, 0.75)
    rows, epochs = [], []
    for number, (gap, accuracy, on) in enumerate(zip(gaps, early, goes_on, strict=True)):
        status = {"status": "finished", "epochs": 2} if on else {"status": "pruned", "epochs": 1}
        rows.append(trial(number, **status, **measured(gap, accuracy)))
        epochs += [
            {"trial_id": f"s-{number:04d}", "epoch": epoch, **measured(gap, accuracy)}
            for epoch in range(1, status["epochs"] + 1)
        ]
    study = records(rows, epochs)
    survivors = select(study.trials, statuses=("finished",))
    among_survivors = stats.spearmanr(GAPS["paper"](survivors), trial_scores(survivors)).statistic
    landmark = at_landmark(study, searched=True).trials
    among_all = stats.spearmanr(GAPS["paper"](landmark), trial_scores(landmark)).statistic
    truth = -6 / math.pi * math.asin(1 / math.sqrt(1.25) / 2)
    assert landmark.num_rows == 200
    assert among_all == pytest.approx(truth, abs=0.05)
    assert among_survivors > truth + 0.15


def test_controls_of_other_methods_are_left_out_unless_they_are_asked_for():
    rows = [trial(0, epochs=1, **measured(1.0, 0.5))]
    rows += [
        trial(number, epochs=1, stage="control", method=method, **measured(1.0, 0.5))
        for number, method in enumerate(("kd", "ce", "pesf_kd"), 1)
    ]
    study = records(rows)
    assert at_landmark(study, searched=False).trials["method"].to_pylist() == ["pesf_kd"]
    assert at_landmark(study, searched=False).evidence == "confirmatory"
    assert "chosen by accuracy" in at_landmark(study, searched=False).note
    assert at_landmark(study, searched=False, methods=["kd", "ce"]).trials.num_rows == 2
    assert at_landmark(records(rows[1:]), searched=False).trials.num_rows == 3


def test_a_study_without_a_trial_has_an_empty_landmark():
    landmark = at_landmark(records([trial(0, epochs=0, status="failed")]), searched=True)
    assert (landmark.epoch, landmark.trials.num_rows) == (0, 0)
    assert "no trial" in landmark.note


def test_all_gaps_are_positive_where_the_teacher_is_the_sharper():
    rows = [trial(0, **measured(0.7, 0.5))]
    found = {name: gap(trials_table(rows)).tolist() for name, gap in GAPS.items()}
    assert found == {name: [pytest.approx(0.7)] for name in ("paper", "centred", "tempered", "entropy")}


def test_a_kd_trial_has_no_entropy_gap_as_its_teachers_entropy_is_not_recorded():
    row = trial(0, method="kd", **{"val/entropy_student": 0.4})
    assert np.isnan(GAPS["entropy"](trials_table([row]))).all()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_every_nuisance_parameter_of_every_space_is_told_by_its_name(space):
    varied = [name for name in space.varied if name.startswith("adapter_") or name.startswith("student_")]
    rows = []
    for number in range(2):
        values = {"adapter_learning_rate": 0.1 + number, "student_learning_rate": 0.1 + number}
        rows.append(trial(number, adapter_schedule=("step", "cosine")[number], adapter_width=1 + number, **values))
    told = nuisance_fields(trials_table(rows))
    nuisance = {parameter.name for parameter in space.parameters if parameter.role == "nuisance"}
    assert "adapter_width" not in told
    assert nuisance <= set(told)
    # A field that a space varies in order to study it is not a nuisance. Callers pass it to `nuisance` explicitly.
    asked = {"adapter_training": {"adapter_learning_rate"}}
    assert {name for name in varied if name in told} - nuisance <= asked.get(space.name, set())


def test_fields_become_columns_numbers_on_the_scale_of_the_search_and_names_as_indicators():
    rows = [
        trial(number, adapter_width=width, adapter_kind=kind, detach_adapter_target=detach, temperature=4.0)
        for number, (width, kind, detach) in enumerate(
            [(2, "serial", False), (4, "logit", True), (8, "feature", False)]
        )
    ]
    columns = config_columns(
        trials_table(rows), ["adapter_width", "adapter_kind", "detach_adapter_target", "temperature"], ()
    )
    assert columns.tolist() == [[2, 0, 1, 0], [4, 1, 0, 1], [8, 0, 0, 0]]
    assert config_columns(trials_table(rows), ["adapter_width"], {"adapter_width"})[:, 0].tolist() == [1, 2, 3]
    assert config_columns(trials_table(rows), [], ()).shape == (3, 0)


def test_means_are_of_the_trials_that_have_every_value():
    values = [np.array([1.0, 3.0, math.nan, 5.0]), np.array([1.0, 2.0, 7.0, 9.0])]
    means, first = config_means(values, ["a", "a", "a", "b"])
    assert [each.tolist() for each in means] == [[2.0, 5.0], [1.5, 9.0]]
    assert first.tolist() == [0, 3]
