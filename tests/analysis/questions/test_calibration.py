"""Reliability diagrams: pooled bins equal the bins of all predictions together."""

from typing import Any

import numpy as np
import pytest

from analysis.figures.calibration import draw_reliability
from analysis.figures.drawing import BLUE, Style
from analysis.questions.calibration import TEST, calibration_errors, compute_reliability, pooled, reliability_caption
from analysis.statistics.estimates import mean_interval
from tests.analysis.conftest import caption_of
from tests.analysis.synthetic import trial, trials_table

BINS = 15


def predictions(generator: np.random.Generator, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences and which predictions are correct. Accuracy is lower than confidence."""
    confidence = generator.uniform(0.2, 1.0, n)
    return confidence, generator.uniform(size=n) < confidence**2


def bins_of(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Return count, sum of confidences and number of correct predictions of each bin."""
    place = np.ceil(confidence * BINS).astype(int) - 1
    held = [place == number for number in range(BINS)]
    return [
        {"count": int(own.sum()), "confidence": float(confidence[own].sum()), "correct": int(right[own].sum())}
        for own in held
    ]


def row(number: int, bins: list[dict[str, Any]] | None, **changes: Any) -> dict[str, Any]:
    own = {"stage": "replicate", "config_id": "c", "replicate": number + 1, "calibration/val_student": bins}
    return trial(number, **{**own, **changes})


def test_seeds_are_pooled_as_if_all_their_predictions_were_one_set():
    generator = np.random.default_rng(0)
    seeds = [predictions(generator) for _ in range(3)]
    rows = [row(number, bins_of(*seed)) for number, seed in enumerate(seeds)]
    (found,) = compute_reliability(trials_table(rows), [("c", "pesf_kd")], stages=["replicate"])
    confidence, right = (np.concatenate(parts) for parts in zip(*seeds, strict=True))
    place = np.ceil(confidence * BINS).astype(int) - 1
    for number in range(BINS):
        own = place == number
        assert found.count[number] == own.sum()
        if own.any():
            assert found.confidence[number] == pytest.approx(confidence[own].mean(), rel=1e-12)
            assert found.accuracy[number] == pytest.approx(right[own].mean(), rel=1e-12)
    apart = sum(abs(right[place == b].sum() - confidence[place == b].sum()) for b in range(BINS))
    assert found.error == pytest.approx(apart / 1500, rel=1e-12)
    assert (found.networks, found.images) == (3, 500)


def test_empty_bins_and_bins_of_few_predictions_are_not_drawn():
    bins = [{"count": 0, "confidence": 0.0, "correct": 0} for _ in range(BINS)]
    bins[3], bins[14] = {"count": 9, "confidence": 2.1, "correct": 2}, {"count": 91, "confidence": 90.0, "correct": 80}
    found = pooled(trials_table([row(0, bins)]), "student", "calibration/val_student", "kd")
    assert found is not None
    assert np.flatnonzero(found.drawn).tolist() == [14]
    assert np.isnan(found.accuracy[0])
    assert found.error == pytest.approx((0.1 + 10) / 100)


def test_a_frozen_teacher_is_one_network_however_many_trials_it_taught():
    generator = np.random.default_rng(0)
    teacher = bins_of(*predictions(generator))
    rows = [
        row(number, bins_of(*predictions(generator)), config_id=config, **{"calibration/val_teacher": teacher})
        for number, config in enumerate(["a", "a", "b"])
    ]
    found = compute_reliability(trials_table(rows), [("a", "kd"), ("b", "ce")], stages=["replicate"])
    assert [(each.network, each.label, each.networks) for each in found] == [
        ("teacher", "", 1), ("student", "kd", 2), ("student", "ce", 1),
    ]  # fmt: skip
    assert found[0].count.sum() == 500


def test_teachers_that_differ_are_told_apart():
    generator = np.random.default_rng(0)
    rows = [
        row(number, None, config_id=config, **{"calibration/val_teacher": bins_of(*predictions(generator))})
        for number, config in enumerate("ab")
    ]
    found = compute_reliability(trials_table(rows), [("a", "kd"), ("b", "sftn")], stages=["replicate"])
    assert [(each.network, each.label) for each in found] == [("teacher", "kd"), ("teacher", "sftn")]


def test_only_finished_trials_of_the_stages_asked_for_are_pooled():
    generator = np.random.default_rng(0)
    rows = [
        row(0, bins_of(*predictions(generator))),
        row(1, bins_of(*predictions(generator)), stage="search"),
        row(2, bins_of(*predictions(generator)), status="failed"),
        row(3, None),
    ]
    (found,) = compute_reliability(trials_table(rows), [("c", "kd")], stages=["replicate"])
    assert found.networks == 1


def test_records_without_bins_have_no_diagram():
    trials = trials_table([row(0, None)])
    assert compute_reliability(trials, [("c", "kd")], stages=["replicate"]) == []
    older = trials.drop_columns([name for name in trials.column_names if name.startswith("calibration/")])
    assert compute_reliability(older, [("c", "kd")], stages=["replicate"]) == []
    assert compute_reliability(trials, [("c", "kd")], stages=["replicate"], on=TEST) == []


def test_the_diagram_has_a_panel_for_each_network_and_says_n():
    generator = np.random.default_rng(0)
    teacher = bins_of(*predictions(generator))
    rows = [
        row(number, bins_of(*predictions(generator)), **{"calibration/val_teacher": teacher}) for number in range(2)
    ]
    found = compute_reliability(trials_table(rows), [("c", "kd")], stages=["replicate"])
    style = Style(BLUE, "o", "-")
    figure = draw_reliability(found, {"": style, "kd": style}, "validation")
    teachers, students = figure.axes
    assert "teacher" in teachers.get_xlabel()
    assert "student" in students.get_xlabel()
    drawn = students.get_lines()[1]
    np.testing.assert_allclose(drawn.get_xdata(), found[1].confidence[found[1].drawn])
    np.testing.assert_allclose(drawn.get_ydata(), found[1].accuracy[found[1].drawn])
    assert "kd n = 2; 500 images each" in reliability_caption(found, "validation")
    assert "Not drawn" not in figure.get_supxlabel()
    figure = draw_reliability(found, {"": style, "kd": style}, "validation", ["ce", "at"])
    assert "Not drawn here, but in the table: ce, at." in caption_of(figure)


def test_each_trials_own_calibration_error_is_that_of_its_bins():
    half = [{"count": 10, "confidence": 9.0, "correct": 5}, *({"count": 0, "confidence": 0.0, "correct": 0},) * 14]
    trials = trials_table([row(0, half), row(1, None)])
    errors = calibration_errors(trials, "calibration/val_student")
    assert errors[0] == pytest.approx(0.4)
    assert np.isnan(errors[1])
    assert np.isnan(calibration_errors(trials, "calibration/of_no_version")).all()


@pytest.mark.slow
def test_the_interval_of_the_calibration_error_covers_that_of_further_seeds():
    """300 simulated configs on eight seeds of 500 predictions (standard error 0.013).

    The true value is the mean error over further seeds with as many predictions. It exceeds the error at an infinite
    number of predictions, because the noise of each bin counts as an error.
    """
    generator = np.random.default_rng(4)
    many = [bins_of(*predictions(generator)) for _ in range(2000)]
    errors = calibration_errors(trials_table([row(0, each) for each in many]), "calibration/val_student")
    truth = float(errors.mean())
    points = (np.arange(20_000) + 0.5) / 20_000 * 0.8 + 0.2
    limit = float(np.abs(points - points**2).mean())  # within a bin, the planted error has one sign
    assert limit < truth < limit + 0.02
    covered = []
    for place in range(300):
        own = mean_interval(generator.choice(errors, 8) if place else errors[:8])
        covered.append(own.low < truth < own.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)
