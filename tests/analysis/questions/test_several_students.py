"""A study that searches the student: configs are compared with controls on the same student, and with no others.

In these studies the large student is better than the small one by 0.10 whatever its method, and a config is exactly
0.02 better than `kd` on the same student. A comparison with another student's control would find 0.12 or -0.08.
"""

from dataclasses import replace

import numpy as np
import pytest

from analysis.figures.curves import compute_learning_curves
from analysis.figures.study import compute_gap_against_accuracy, compute_parameter_effect
from analysis.questions.association import between_configs
from analysis.questions.confirmation import summarise_confirmation
from analysis.questions.methods import config_label, settings_in_words
from analysis.questions.power import find_resolution
from analysis.reading.landmark import at_landmark, nuisance_fields
from analysis.reading.trials import StudyRecords, control_name, markdown_table, summarise_configs
from analysis.report.shown import whom_to_show
from tests.analysis.synthetic import epochs_table, trial, trials_table

SIZES = {"resnet8": 0.60, "resnet20": 0.70}
METHODS = {"pesf_kd": 0.02, "kd": 0.0, "ce": -0.05}
SEEDS = range(1, 9)


def rows(stage, *, first=1):
    noise = np.random.default_rng(0).normal(0, 0.01, (len(SIZES), len(METHODS), len(SEEDS)))
    found = []
    for place, (student, score) in enumerate(SIZES.items()):
        for number, (method, better) in enumerate(METHODS.items()):
            for seed in SEEDS:
                value = score + better + noise[place, number, seed - 1] - noise[place, number].mean()
                found.append(
                    trial(
                        first * 1000 + len(found),
                        stage=stage or ("replicate" if method == "pesf_kd" else "control"),
                        method=method,
                        student=student,
                        config_id=f"{method}-{student}",
                        name=f"{method}-s{seed}",
                        replicate=seed,
                        **{"val/accuracy": value, "test/accuracy": value, "val/sharpness_gap": 3.0},
                    )
                )
    return found


def searched():
    """A search in which the student moves accuracy and gap, and nothing goes from gap to accuracy."""
    generator, found = np.random.default_rng(1), []
    for number in range(40):
        student = list(SIZES)[number % 2]
        gap = (6.0 if student == "resnet8" else 2.0) + generator.normal(0, 0.3)
        accuracy = SIZES[student] + generator.normal(0, 0.01)
        found.append(trial(number, student=student, **{"val/accuracy": accuracy, "val/sharpness_gap": gap}))
    return found


@pytest.fixture(scope="module")
def records():
    trials = [*searched(), *rows(None)]
    epochs = [
        {
            "trial_id": each["trial_id"],
            "epoch": 15,
            **{name: each[name] for name in ("val/accuracy", "val/sharpness_gap")},
        }
        for each in trials
    ]
    return StudyRecords(trials_table(trials), epochs_table(epochs))


def test_repeated_configs_are_compared_with_kd_on_the_same_student(records):
    found = {each.config_id: each for each in summarise_configs(records.trials)}
    for student in SIZES:
        assert found[f"pesf_kd-{student}"].against_baseline.value == pytest.approx(0.02)
        assert found[f"ce-{student}"].against_baseline.value == pytest.approx(-0.05)
        assert found[f"kd-{student}"].against_baseline is None
        assert found[f"kd-{student}"].varied == {"student": student}
    names = {control_name(each) for each in found.values() if each.stage == "control"}
    assert names == {"kd (resnet8)", "kd (resnet20)", "ce (resnet8)", "ce (resnet20)"}
    assert "student resnet20" in markdown_table([found["kd-resnet20"]])
    varied = replace(found["kd-resnet20"], varied={"student": "cnn_8_16", "adapter_width": 16})
    assert settings_in_words(varied) == "student cnn_8_16, adapter width 16"
    assert config_label(varied) == "kd (student cnn_8_16, adapter width 16)"


def test_the_spread_of_a_difference_is_that_from_the_same_student(records):
    scores = {row["config_id"]: [] for row in rows(None)}
    for row in rows(None):
        scores[row["config_id"]].append(row["val/accuracy"])
    resolution = find_resolution(records.trials, summarise_configs(records.trials), None)
    assert {each.label: each.spread for each in resolution.compared if each.label.startswith("ce")} == {
        f"ce ({student})": pytest.approx(np.std(np.subtract(scores[f"ce-{student}"], scores[f"kd-{student}"]), ddof=1))
        for student in SIZES
    }


def test_a_confirmation_compares_with_controls_on_the_same_student():
    usual = {"rank": None, "control": None, "winner": False, "bound": None, "search_score": None}
    chosen = [{**usual, "config_id": f"pesf_kd-{student}", "label": student, "rank": 1 + place}
              for place, student in enumerate(SIZES)]  # fmt: skip
    chosen += [{**usual, "config_id": f"{method}-{student}", "label": f"{method} ({student})", "control": method}
               for student in SIZES for method in ("ce", "kd")]  # fmt: skip
    result = summarise_confirmation(trials_table(rows("confirm")), chosen, baseline=None)
    assert {(each.label, each.against_label): each.difference.value for each in result.comparisons} == {
        ("resnet8", "ce (resnet8)"): pytest.approx(0.07), ("resnet8", "kd (resnet8)"): pytest.approx(0.02),
        ("resnet20", "ce (resnet20)"): pytest.approx(0.07), ("resnet20", "kd (resnet20)"): pytest.approx(0.02),
    }  # fmt: skip
    shown = whom_to_show([], result, [], compares=False)
    assert set(shown.labels.values()) >= {"kd (resnet8)", "kd (resnet20)"}


def test_the_student_makes_no_association_of_gap_and_accuracy_where_it_is_held(records):
    landmark = at_landmark(records, searched=True)
    assert nuisance_fields(records.trials) == ("student",)
    alone = between_configs(landmark, "paper").estimate
    held = between_configs(landmark, "paper", held=("student",)).estimate
    assert alone.high < -0.3
    assert held.low < 0 < held.high


def test_figures_have_a_line_for_each_control_and_a_curve_for_each_student(records):
    effect = compute_parameter_effect(records, "student")
    assert effect.categories == ("resnet20", "resnet8")
    assert effect.references.keys() == {"kd (resnet8)", "kd (resnet20)", "ce (resnet8)", "ce (resnet20)"}
    assert compute_gap_against_accuracy(records).references.keys() == effect.references.keys()
    curves = compute_learning_curves(records.trials, records.epochs)
    assert {(each.method, each.n) for each in curves} == {
        (f"{method} ({student})", len(SEEDS)) for method in METHODS for student in SIZES
    }


def test_the_axis_has_the_scale_of_the_search(records):
    assert compute_parameter_effect(records, "adapter_width").log
    linear = StudyRecords(records.trials, records.epochs, frozenset({"temperature"}))
    assert not compute_parameter_effect(linear, "adapter_width").log


@pytest.mark.usefixtures("few_draws")
def test_where_only_the_student_moves_gap_and_accuracy_holding_it_takes_the_correlation_away():
    """Of 50 studies with 24 configs, how many find a correlation at level 0.05."""
    generator, alarms = np.random.default_rng(5), {"plain": 0, "held": 0}
    for _ in range(50):
        student = generator.integers(3, size=24)
        gap, accuracy = student + generator.normal(0, 0.5, 24), 0.1 * student + generator.normal(0, 0.05, 24)
        rows = [
            trial(
                row,
                student=f"cnn_{student[row] + 3}_4",
                **{"val/accuracy": accuracy[row], "val/sharpness_gap": gap[row]},
            )
            for row in range(24)
        ]
        epochs = [{"trial_id": row["trial_id"], "epoch": 15, "val/accuracy": row["val/accuracy"],
                   "val/sharpness_gap": row["val/sharpness_gap"]} for row in rows]  # fmt: skip
        landmark = at_landmark(StudyRecords(trials_table(rows), epochs_table(epochs)), searched=True)
        for name, held in (("plain", ()), ("held", ("student",))):
            alarms[name] += between_configs(landmark, "paper", held=held).estimate.p_value <= 0.05
    assert alarms["plain"] > 45
    assert alarms["held"] <= 7  # the 0.99 quantile if exactly 5% were found


def test_records_that_do_not_name_the_student_are_compared_with_the_one_baseline():
    changed = [{**row, "student": None} for row in rows(None) if row["student"] == "resnet8"]
    found = {each.config_id: each for each in summarise_configs(trials_table(changed))}
    assert found["pesf_kd-resnet8"].against_baseline.value == pytest.approx(0.02)
