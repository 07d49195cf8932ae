"""Comparison of confirmed configs over test samples and within classes, on simulated answers."""

import numpy as np
import pytest

from analysis.questions.confirmation import summarise_confirmation
from analysis.questions.confirmation_words import confirmation_table
from analysis.questions.samples import compare_classes, correct_samples, crossed_difference
from tests.analysis.synthetic import trial, trials_table

SAMPLES, SEEDS = 203, 5  # not a multiple of eight


def answers(generator, share):
    return generator.random((SEEDS, SAMPLES)) < share


def rows_of(config_id, method, correct):
    """Return the confirmed trials of a config with these correct answers (seeds, samples)."""
    labels = np.arange(SAMPLES) % 3
    rows = []
    for replicate, own in enumerate(correct, start=1):
        classes = [
            {"count": int((labels == place).sum()), "correct": int(own[labels == place].sum()),
             "gap_count": 10, "gap": 5.0 * place}
            for place in range(3)
        ]  # fmt: skip
        rows.append(trial(
            replicate + (100 if method == "kd" else 0), config_id=config_id, method=method, stage="confirm",
            replicate=replicate, **{"test/accuracy": float(own.mean()), "val/accuracy": 0.8,
            "data/test_samples": float(SAMPLES), "samples/test_correct": np.packbits(own).tobytes(),
            "classes/test": classes},
        ))  # fmt: skip
    return rows


@pytest.fixture
def both():
    generator = np.random.default_rng(0)
    return answers(generator, 0.85), answers(generator, 0.8)


def test_answers_come_back_from_their_bits(both):
    found = correct_samples(trials_table(rows_of("a", "dkd", both[0])))
    assert found.keys() == set(range(1, SEEDS + 1))
    for replicate, own in found.items():
        np.testing.assert_array_equal(own, both[0][replicate - 1])


def test_the_difference_over_samples_is_that_of_the_accuracies(both):
    one, other = (trials_table(rows_of(*each)) for each in (("a", "dkd", both[0]), ("k", "kd", both[1])))
    found = crossed_difference([one], [other])
    assert found.value == pytest.approx(both[0].mean() - both[1].mean())
    assert found.low < found.value < found.high
    assert crossed_difference([one], [other.drop_columns(["samples/test_correct"])]) is None


def test_classes_are_compared_by_seed_and_their_gaps_averaged(both):
    one, other = (trials_table(rows_of(*each)) for each in (("a", "dkd", both[0]), ("k", "kd", both[1])))
    results = compare_classes(one, other)
    labels = np.arange(SAMPLES) % 3
    assert [each.samples for each in results] == np.bincount(labels).tolist()
    for place, each in enumerate(results):
        own, others = (answers[:, labels == place].mean(axis=1) for answers in both)
        assert each.accuracy.value == pytest.approx(own.mean())
        assert each.difference.value == pytest.approx((own - others).mean())
        assert each.gap.value == pytest.approx(0.5 * place)
    assert compare_classes(one, other.drop_columns(["classes/test"])) == []


def test_the_confirmation_shows_the_interval_over_samples_next_to_that_over_seeds(both):
    trials = trials_table([*rows_of("a", "dkd", both[0]), *rows_of("k", "kd", both[1])])
    chosen = [
        {"config_id": "a", "label": "dkd", "rank": 1, "control": None},
        {"config_id": "k", "label": "kd", "rank": None, "control": "kd"},
    ]
    rows = [{**each, "winner": False, "bound": None, "search_score": None} for each in chosen]
    result = summarise_confirmation(trials, rows, baseline="kd")
    (comparison,) = result.comparisons
    assert comparison.over_samples.value == pytest.approx(comparison.difference.value)
    shown = confirmation_table(result)
    assert "| over seeds and samples |" in shown
    assert "crossed bootstrap interval over both" in shown
    without = summarise_confirmation(trials.drop_columns(["samples/test_correct"]), rows, baseline="kd")
    assert "over seeds and samples" not in confirmation_table(without)


@pytest.mark.slow
def test_accuracies_and_differences_within_classes_are_covered():
    """150 simulated confirmations on five seeds with three classes of 68 samples (450 classes, standard error 0.01).

    The classes of a seed are independent here. The difference is that between accuracies of 0.85 and 0.8.
    """
    generator = np.random.default_rng(2)
    accuracies, differences, sizes = [], [], []
    for number in range(150):
        one, other = (
            trials_table(rows_of(name, method, answers(generator, share)))
            for name, method, share in (("a", "dkd", 0.85), ("k", "kd", 0.8))
        )
        for each in compare_classes(one, other, seed=number):
            accuracies.append(each.accuracy.low < 0.85 < each.accuracy.high)
            differences.append(each.difference.low < 0.05 < each.difference.high)
            sizes.append(each.difference.low > 0 or each.difference.high < 0)
    assert np.mean(accuracies) == pytest.approx(0.95, abs=0.035)
    assert np.mean(differences) == pytest.approx(0.95, abs=0.035)
    assert np.mean(sizes) > 0.15  # a true difference is sometimes found
