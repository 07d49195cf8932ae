"""On datasets with a measure other than accuracy, that measure is compared and named in texts and axes."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.figures.curves import compute_learning_curves
from analysis.figures.study import compute_gap_against_accuracy, draw_gap_against_accuracy
from analysis.questions.confirmation import summarise_confirmation
from analysis.questions.confirmation_words import confirmation_table
from analysis.questions.methods import methods_table
from analysis.reading.trials import (
    compare_methods,
    markdown_table,
    objective,
    objective_measure,
    objective_note,
    summarise_configs,
    trial_scores,
)
from analysis.wording.sentences import study_in_words
from tests.analysis.planted import records
from tests.analysis.synthetic import epochs_table, trial, trials_table

COLA = {"dataset": "glue:cola", "val/accuracy": 0.5}


def repeated(method, replicate, score, *, stage="control", number=0):
    """Return a trial on CoLA with this Matthews correlation."""
    return trial(
        number, method=method, stage=stage, replicate=replicate, config_id=f"config-{method}", **COLA,
        **{"val/matthews": score, "test/matthews": score - 0.1, "test/accuracy": 0.4, "val/sharpness_gap": 1.0},
    )  # fmt: skip


@pytest.fixture
def trials():
    rows = [
        trial(n, **COLA, **{"val/matthews": 0.1 * n, "val/sharpness_gap": 5.0 - n, "adapter_width": n + 1})
        for n in range(6)
    ]
    for number, (method, score) in enumerate((("ce", 0.2), ("kd", 0.3))):
        for r in (1, 2, 3):
            rows.append(repeated(method, r, score + r / 100, number=10 * (number + 1) + r))
    return trials_table(rows)


def test_the_score_of_a_trial_is_its_datasets_own_measure(trials):
    assert objective_measure(trials) == "val/matthews"
    assert objective(trials) == "Matthews correlation"
    np.testing.assert_allclose(trial_scores(trials)[:6], 0.1 * np.arange(6))
    images = trials_table([trial(0, **{"val/accuracy": 0.7})])
    assert (objective_measure(images), objective(images), trial_scores(images).tolist()) == (
        "val/accuracy", "accuracy", [0.7]
    )  # fmt: skip


def test_a_notebook_says_first_what_it_calls_the_score(trials):
    images = trials_table([trial(0, **{"val/accuracy": 0.7})])
    assert "The score is the objective of the task: Matthews correlation." in study_in_words(trials, "s")
    assert objective_note(images) is None
    assert "objective of the task" not in study_in_words(images, "s")
    assert "objective of the task: Matthews correlation or accuracy." in objective_note(
        pa.concat_tables([images, trials.slice(1, 1)])
    )


def test_trials_of_several_datasets_have_each_their_own(trials):
    images = trials_table([trial(90, **{"val/accuracy": 0.7})])
    both = pa.concat_tables([images, trials.slice(1, 1)])
    np.testing.assert_allclose(trial_scores(both), [0.7, 0.1])
    assert objective(both) == "score"


def test_records_without_a_dataset_or_that_measure_are_read_as_before(trials):
    images = trials_table([trial(0, **{"val/accuracy": 0.7})])
    old = images.drop_columns(["dataset", "val/matthews", "val/f1", "test/matthews", "test/f1"])
    assert trial_scores(old).tolist() == [0.7]
    assert objective(old) == "accuracy"


def test_tables_compare_by_it_and_name_it(trials):
    by_method = {each.method: each for each in summarise_configs(trials)}
    assert by_method["kd"].accuracy.value == pytest.approx(0.32)
    assert by_method["kd"].test_accuracy.value == pytest.approx(0.22)
    assert by_method["ce"].against_baseline.value == pytest.approx(-0.1)
    text = markdown_table(list(by_method.values()))
    assert "| Matthews correlation | test Matthews correlation |" in text
    assert "Matthews correlation − kd" in text
    assert "accuracy" not in text
    assert "Matthews correlation − kd" in methods_table(compare_methods(trials))


def test_figures_show_it_and_name_it(trials):
    found = compute_gap_against_accuracy(records(trials.to_pylist()))
    np.testing.assert_allclose(np.sort(found.accuracy), 0.1 * np.arange(6))
    assert found.correlation.value == pytest.approx(-1)
    axes = draw_gap_against_accuracy(found).axes[0]
    assert axes.get_ylabel() == "validation Matthews correlation"
    epochs = epochs_table(
        [{"trial_id": f"s-{n:04d}", "epoch": 1, "val/accuracy": 0.5, "val/matthews": 0.25} for n in range(40)]
    )
    curves = compute_learning_curves(trials, epochs)
    assert {float(curve.accuracy[0, 0]) for curve in curves} == {0.25}
    assert {curve.objective for curve in curves} == {"Matthews correlation"}


def test_a_confirmation_compares_by_it_on_the_test_split(trials):
    rows = [
        repeated(m, r, s + d * r, stage="confirm", number=50 + r)
        for m, s, d in (("a", 0.9, 0.01), ("kd", -0.8, 0.0))
        for r in range(1, 6)
    ]
    for number, row in enumerate(rows):
        row["trial_id"] = f"c-{number}"
    chosen = [
        {"config_id": f"config-{m}", "label": m, "rank": rank, "control": control, "winner": False, "bound": None,
         "search_score": None}
        for m, rank, control in (("a", 1, None), ("kd", None, "kd"))
    ]  # fmt: skip
    result = summarise_confirmation(trials_table(rows), chosen, baseline=None)
    (comparison,) = result.comparisons
    # The bound exceeds 1, the largest possible difference of two accuracies.
    assert comparison.difference.value == pytest.approx(1.73)
    assert comparison.difference.high > 1.5
    assert "test Matthews correlation" in confirmation_table(result)
