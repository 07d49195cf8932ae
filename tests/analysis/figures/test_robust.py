"""Axes keep the bulk of the values in sight, whatever one diverged trial does."""

import numpy as np
import pytest

from analysis.figures.curves import LearningCurve, draw_learning_curves
from analysis.figures.methods import draw_methods
from analysis.figures.robust import find_window, score_window
from analysis.figures.study import (
    compute_gap_against_accuracy,
    compute_history,
    draw_gap_against_accuracy,
    draw_history,
)
from tests.analysis.conftest import caption_of
from tests.analysis.planted import records
from tests.analysis.report.charted import summary
from tests.analysis.synthetic import trial


@pytest.mark.parametrize("diverged", [[127.0], [127.0, 126.0], [127.0, 12.0], [-127.0], [127.0, -90.0]])
def test_diverged_values_lie_outside_and_all_others_inside(diverged: list[float]) -> None:
    others = np.random.default_rng(0).normal(0, 0.5, 20)
    window = find_window([*others, *diverged, float("nan")])
    assert window.outside(diverged).all()
    assert not window.outside(others).any()
    inside = window.clip([*others, *diverged])
    assert np.ptp(inside) < 2 * np.ptp(others)
    np.testing.assert_array_equal(inside[:20], others)


@pytest.mark.parametrize("size", [1, 4, 5, 8, 12, 24, 100])
def test_values_without_an_outlier_are_seldom_left_out(size: int) -> None:
    generator = np.random.default_rng(size)
    cut = [find_window(generator.normal(size=size)).is_cut for _ in range(500)]
    assert np.mean(cut) < (0.04 if size == 5 else 0.01)


def test_a_high_score_and_a_small_fall_are_no_outliers() -> None:
    assert not score_window([0.85, 0.86, 0.84, 0.83, 0.99]).is_cut
    assert not score_window([0.850, 0.851, 0.8505, 0.8508, 0.82]).is_cut
    assert score_window([0.85, 0.86, 0.84, 0.83, 0.1]).outside([0.1]).all()
    assert not find_window([]).is_cut


def test_one_diverged_trial_flattens_no_figure_and_is_named_in_the_caption() -> None:
    generator = np.random.default_rng(0)
    rows = [
        trial(n, **{"val/sharpness_gap": float(generator.normal()), "val/accuracy": 0.8 + 0.01 * n / 20})
        for n in range(20)
    ]
    study = records([*rows, trial(20, **{"val/sharpness_gap": 127.0, "val/accuracy": 0.1})])
    found = compute_gap_against_accuracy(study)
    assert (found.fitted, found.correlation.n) == (20, 21)  # ranks resist an outlier, a line does not
    assert found.grid.max() < 5
    assert (found.low >= 0).all()
    assert (found.high <= 1).all()
    figure = draw_gap_against_accuracy(found)
    assert figure.axes[0].get_xlim()[1] < 5
    assert figure.axes[0].get_ylim()[0] > 0.7
    assert "outside of the axis: gap 127.00." in caption_of(figure)
    assert "over the 20 configs within the axes" in caption_of(figure)
    history = draw_history(compute_history(study.trials))
    assert history.axes[0].get_ylim()[0] > 0.7
    assert "outside of the axis: accuracy 0.100." in caption_of(history)


def test_bands_of_learning_curves_stay_within_the_possible_range_and_one_wild_gap_is_cut() -> None:
    def curve(method: str, gap: float) -> LearningCurve:
        accuracy = np.array([[0.5, 3.0], [0.9, 3.0]])
        return LearningCurve(method, "repeated", 5, 1, np.array([1, 2]), accuracy, np.array([[gap, 0.1]] * 2))

    curves = [*(curve(name, 1.0) for name in ("ce", "kd", "dkd", "dist")), curve("pesf_kd", 127.0)]
    _, low, high = curves[0].band("accuracy")
    assert (low.tolist(), high.tolist()) == ([0.0, 0.0], [1.0, 1.0])
    figure = draw_learning_curves(curves)
    assert figure.axes[0].get_ylim()[0] > -0.2
    assert figure.axes[1].get_ylim()[1] < 3
    assert "The gap axis leaves out the outlying part of pesf_kd (127.00)." in caption_of(figure)


def test_many_curves_have_a_panel_each_with_name_and_last_mean_and_no_legend() -> None:
    values = np.array([[0.5, 0.01], [0.9, 0.01]])
    curves = [
        LearningCurve(f"m{n}", "confirm", 5, 1, np.array([1, 2]), values - n / 100, np.full((2, 2), np.nan))
        for n in range(9)
    ]
    figure = draw_learning_curves(curves)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text.startswith("m")] == [f"m{n} {0.9 - n / 100:.3f}" for n in range(9)]
    assert axes.get_legend() is None
    assert len(axes.collections[-1].get_paths()) == 9
    assert "confirmed trials on fresh seeds" in caption_of(figure)


def test_a_collapsed_method_leaves_the_others_the_panel() -> None:
    values = {"ce": 0.80, "kd": 0.81, "at": 0.82, "sp": 0.83, "vid": 0.82, "ttm": 0.16}
    figure = draw_methods([summary(name, value) for name, value in values.items()])
    assert figure.axes[0].get_xlim()[0] > 0.6
    assert "outside of the axis: accuracy 0.160." in caption_of(figure)
