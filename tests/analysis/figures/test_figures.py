"""Values shown by the figures. Drawing them needs no display and no pyplot."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy import stats

from analysis.figures.curves import compute_learning_curves, draw_learning_curves
from analysis.figures.study import (
    compute_gap_against_accuracy,
    compute_history,
    compute_parameter_effect,
    draw_gap_against_accuracy,
    draw_history,
    draw_parameter_effect,
)
from analysis.questions.association import between_configs
from analysis.reading.landmark import at_landmark
from analysis.reading.trials import EXAMPLES, StudyRecords, numbers, open_study
from tests.analysis.conftest import caption_of
from tests.analysis.planted import records
from tests.analysis.synthetic import epochs_table, trial, trials_table, whole_study

pytestmark = pytest.mark.study


def test_the_best_so_far_follows_the_start_and_counts_finished_trials_only() -> None:
    scores = [(None, "failed"), (0.5, "finished"), (0.9, "pruned"), (0.4, "finished"), (0.6, "finished")]
    rows = [trial(i, status=status, **{"val/accuracy": value}) for i, (value, status) in enumerate(scores)]
    history = compute_history(trials_table([*reversed(rows), trial(9, stage="control", **{"val/accuracy": 1.0})]))
    assert history.order.tolist() == [1, 2, 3, 4, 5]
    assert history.status == ("failed", "finished", "pruned", "finished", "finished")
    np.testing.assert_array_equal(history.best, [math.nan, 0.5, 0.5, 0.5, 0.6])
    np.testing.assert_array_equal(history.accuracy, [math.nan, 0.5, 0.9, 0.4, 0.6])


def test_a_parameters_effect_holds_search_trials_repeated_configs_and_controls() -> None:
    study = StudyRecords(*whole_study())
    effect = compute_parameter_effect(study, "adapter_width")
    assert effect.searched.shape == (20, 2)
    assert effect.categories == ()
    landmark = at_landmark(study, searched=True)
    assert landmark.epoch == 5
    assert effect.correlation is not None
    assert (effect.correlation.n, landmark.trials.num_rows) == (24, 24)
    both = numbers(landmark.trials, "adapter_width"), numbers(landmark.trials, "val/accuracy")
    assert effect.correlation.value == pytest.approx(stats.spearmanr(*both).statistic)
    assert set(effect.references) == {"ce", "kd"}
    assert len(effect.repeated) == 3
    assert all(estimate.n == 5 for _, estimate, _ in effect.repeated)
    assert effect.note is not None
    assert "4 stopped early" in effect.note
    assert "The rank correlation uses all configs: 24 trials at epoch 5 of 15" in effect.note


def test_a_categorical_parameter_is_numbered_by_its_names_and_has_no_rank_correlation() -> None:
    kinds = ["serial", "logit", "serial"]
    rows = [trial(i, adapter_kind=kind, **{"val/accuracy": 0.1 * i}) for i, kind in enumerate(kinds)]
    effect = compute_parameter_effect(records(rows), "adapter_kind")
    assert effect.categories == ("logit", "serial")
    assert effect.searched[:, 0].tolist() == [1.0, 0.0, 1.0]
    assert effect.correlation is None


def test_a_parameter_that_nobody_recorded_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'wdith'"):
        compute_parameter_effect(records([]), "wdith")


def test_the_line_through_gap_and_accuracy_is_least_squares_within_its_band() -> None:
    found = compute_gap_against_accuracy(StudyRecords(*whole_study(searched=20, pruned=0)))
    slope, intercept = np.polyfit(found.gap, found.accuracy, 1)
    np.testing.assert_allclose(found.line, intercept + slope * found.grid, rtol=1e-10)
    assert (found.low < found.line).all()
    assert (found.line < found.high).all()
    # Planted: accuracy falls by 0.02 a nat; its standard error at n = 20 is about 0.003.
    assert slope == pytest.approx(-0.02, abs=0.009)
    assert found.correlation.n == len(found.gap) == 20
    assert set(found.references) == {"kd"}
    assert (found.epoch, found.note) == (None, None)


def test_gap_against_accuracy_is_of_all_configs_at_one_epoch_and_not_of_the_survivors() -> None:
    study = StudyRecords(*whole_study())
    found = compute_gap_against_accuracy(study)
    assert len(found.gap) == found.correlation.n == 24
    assert found.correlation == between_configs(at_landmark(study, searched=True), "paper").estimate
    assert (found.epoch, found.note is not None) == (5, True)
    assert "4 were stopped early and are in it as they were then" in str(found.note)
    said = caption_of(draw_gap_against_accuracy(found))
    assert "n = 24 configs of the search" in said
    assert "24 trials at epoch 5 of 15" in said
    # The controls are shown at the same epoch.
    kd = study.epochs.filter(pc.equal(study.epochs["epoch"], 5)).to_pylist()
    ids = {row["trial_id"] for row in study.trials.to_pylist() if row["method"] == "kd"}
    assert found.references["kd"][1].value == pytest.approx(
        np.mean([row["val/accuracy"] for row in kd if row["trial_id"] in ids])
    )


def test_the_arms_of_an_imposed_gap_are_not_pooled() -> None:
    found = compute_gap_against_accuracy(open_study(EXAMPLES / "fashion-gap"))
    assert len(found.gap) == 48
    assert len(found.line) == 0
    assert math.isnan(found.correlation.value)
    assert "arms of imposed gaps are not pooled" in caption_of(draw_gap_against_accuracy(found))


def test_a_correlation_that_early_stopping_hides_among_survivors_is_told_whole() -> None:
    # Configs with a large gap are stopped early because of their accuracy. Among the others there is no correlation.
    rows, epochs = [], []
    for number in range(30):
        gap, pruned = float(number), number >= 10
        accuracy = 0.9 - 0.02 * gap if pruned else 0.8 + 0.01 * (number % 2)
        rows.append(trial(number, status="pruned" if pruned else "finished", epochs=1 if pruned else 2))
        values = {"val/sharpness_gap": gap, "val/accuracy": accuracy}
        rows[-1] |= values
        epochs += [
            {"trial_id": rows[-1]["trial_id"], "epoch": each, **values} for each in range(1, rows[-1]["epochs"] + 1)
        ]
    found = compute_gap_against_accuracy(records(rows, epochs)).correlation
    assert found.n == 30
    assert found.high < -0.8


def test_the_band_narrows_to_the_line_where_the_points_lie_on_it() -> None:
    rows = [trial(i, **{"val/sharpness_gap": float(i), "val/accuracy": 0.9 - 0.01 * i}) for i in range(8)]
    found = compute_gap_against_accuracy(records(rows))
    np.testing.assert_allclose(found.low, found.line, atol=1e-12)
    np.testing.assert_allclose(found.high, found.line, atol=1e-12)


@pytest.mark.parametrize(("count", "points"), [(0, 0), (1, 0), (3, 50)])
def test_few_trials_give_no_band_and_one_gives_no_line(count: int, points: int) -> None:
    rows = [trial(i, **{"val/sharpness_gap": float(i), "val/accuracy": 0.5}) for i in range(count)]
    found = compute_gap_against_accuracy(records(rows))
    assert len(found.line) == points
    assert np.isnan(found.low).all()


def test_learning_curves_are_the_mean_and_deviation_of_repeated_trials_by_method() -> None:
    rows = [trial(0), *(trial(i, stage="replicate", replicate=i, config_id="A") for i in (1, 2))]
    rows.append(trial(3, stage="control", method="ce"))
    values = {0: 0.9, 1: 0.2, 2: 0.4, 3: 0.1}
    epochs = [
        {"trial_id": f"s-{i:04d}", "epoch": epoch, "val/accuracy": value + 0.1 * epoch}
        | ({"val/sharpness_gap": 2.0} if i != 3 else {})
        for i, value in values.items()
        for epoch in (1, 2)
    ]
    pesf, ce = compute_learning_curves(trials_table(rows), epochs_table(epochs))
    assert (pesf.method, pesf.stage, pesf.n, pesf.configs) == ("pesf_kd", "repeated", 2, 1)
    assert pesf.epoch.tolist() == [1, 2]
    np.testing.assert_allclose(pesf.accuracy, [[0.4, math.sqrt(0.02)], [0.5, math.sqrt(0.02)]])
    np.testing.assert_allclose(pesf.gap, [[2.0, 0.0]] * 2)
    np.testing.assert_allclose(ce.accuracy, [[0.2, 0.0], [0.3, 0.0]])
    assert np.isnan(ce.gap).all()


def test_without_repetitions_the_curves_are_of_the_search_and_say_so() -> None:
    epochs = [{"trial_id": "s-0000", "epoch": 1, "val/accuracy": 0.5}]
    (curve,) = compute_learning_curves(trials_table([trial(0)]), epochs_table(epochs))
    assert curve.stage == "search"
    assert "over search trials" in caption_of(draw_learning_curves([curve]))


def test_every_caption_carries_n_and_correlations_are_called_exploratory() -> None:
    trials, epochs = whole_study()
    history = draw_history(compute_history(trials))
    width = draw_parameter_effect(compute_parameter_effect(StudyRecords(trials, epochs), "adapter_width"))
    gap = draw_gap_against_accuracy(compute_gap_against_accuracy(StudyRecords(trials, epochs)))
    curves = draw_learning_curves(compute_learning_curves(trials, epochs))
    assert "n = 24 search trials" in caption_of(history)
    assert "20 finished, 4 pruned" in caption_of(history)
    for figure, drawn in ((width, "n = 20 search trials"), (gap, "n = 24 configs")):
        assert drawn in caption_of(figure)
        assert "exploratory Spearman" in caption_of(figure)
        assert "n = 24" in caption_of(figure)
    assert "Survivors only" in caption_of(width)
    assert "no survivor is selected" in caption_of(gap)
    assert "pesf_kd: n = 15, configs = 3" in caption_of(curves)


def test_axes_say_what_they_show_and_in_which_unit() -> None:
    trials, epochs = whole_study()
    (gap,) = draw_gap_against_accuracy(compute_gap_against_accuracy(StudyRecords(trials, epochs))).axes
    assert "(nats)" in gap.get_xlabel()
    assert "(fraction)" in gap.get_ylabel()
    (width,) = draw_parameter_effect(compute_parameter_effect(StudyRecords(trials, epochs), "adapter_width")).axes
    assert width.get_xscale() == "log"
    assert width.get_xlabel() == "adapter width"
    panels = draw_learning_curves(compute_learning_curves(trials, epochs)).axes
    assert [panel.get_xlabel() for panel in panels] == ["epoch", "epoch"]


@pytest.mark.parametrize("rows", [[], [trial(0)], [trial(0, status="failed")]], ids=["none", "one", "failed"])
def test_a_study_with_next_to_nothing_in_it_is_still_drawn(rows: list[dict[str, object]], tmp_path: Path) -> None:
    trials, epochs = trials_table(rows), epochs_table([])
    figures = [
        draw_history(compute_history(trials)),
        draw_parameter_effect(compute_parameter_effect(StudyRecords(trials, epochs), "adapter_width")),
        draw_parameter_effect(compute_parameter_effect(StudyRecords(trials, epochs), "adapter_kind")),
        draw_gap_against_accuracy(compute_gap_against_accuracy(StudyRecords(trials, epochs))),
        draw_learning_curves(compute_learning_curves(trials, epochs)),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png", dpi=40)


@pytest.mark.launcher
def test_figures_leave_pyplot_alone_and_the_analysis_loads_no_torch_and_no_ray() -> None:
    names = ["matplotlib.pyplot", "torch", "ray", "mlflow", "optuna"]
    program = f"import sys, analysis.figures.study; print([name for name in {names} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
