import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from trainables.data.text.metrics import METRICS, constant_score


def reference(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the metric computed from the definition, in float64. An undefined metric is 0."""
    if name == "accuracy":
        return float(np.mean(predictions == labels))
    if name == "matthews":
        varies = np.ptp(predictions) > 0 and np.ptp(labels) > 0
        return float(np.corrcoef(predictions.astype(np.float64), labels.astype(np.float64))[0, 1]) if varies else 0.0
    hits = float(np.sum(predictions * labels))
    if hits == 0:
        return 0.0
    precision, recall = hits / float(np.sum(predictions)), hits / float(np.sum(labels))
    return 2 / (1 / precision + 1 / recall)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_a_measure_is_what_its_definition_gives(name, share):
    random = np.random.default_rng(int(100 * share))
    for shares in ((share, 0.5), (0.3, share), (share, share)):
        predictions, labels = ((random.random(200) < each).astype(np.int64) for each in shares)
        found = METRICS[name](torch.from_numpy(predictions), torch.from_numpy(labels))
        assert found.dtype == torch.float64
        assert found.shape == ()
        assert found.item() == pytest.approx(reference(name, predictions, labels), abs=1e-12)


def test_hand_values():
    labels = torch.tensor([1, 1, 1, 0, 0])
    predictions = torch.tensor([1, 1, 0, 1, 0])
    values = {name: metric(predictions, labels).item() for name, metric in METRICS.items()}
    # TP 2, FN 1, FP 1, TN 1: (2·1 - 1·1) / √(3·3·2·2)
    assert values == pytest.approx({"accuracy": 3 / 5, "f1": 4 / 6, "matthews": 1 / 6})


def test_f1_takes_predictions_and_labels_for_what_they_are():
    # Precision 1/3, recall 1. Swapping both leaves F1 unchanged. Matthews correlation is 1·1 / √(3·1·1·3).
    labels, predictions = torch.tensor([1, 0, 0, 0]), torch.tensor([1, 1, 1, 0])
    assert METRICS["f1"](predictions, labels).item() == pytest.approx(0.5)
    assert METRICS["matthews"](predictions, labels).item() == pytest.approx(1 / 3)
    # All wrong: every prediction is the opposite of the label.
    assert METRICS["f1"](1 - labels, labels).item() == 0.0
    assert METRICS["matthews"](1 - labels, labels).item() == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("predictions", "labels", "f1"),
    # Matthews correlation is 0 in all of these.
    [
        ([], [], 0.0),
        ([0, 0], [0, 0], 0.0),
        ([1, 1], [1, 1], 1.0),
        ([1, 1], [0, 0], 0.0),
        ([0, 0], [1, 1], 0.0),
        ([0, 0, 0], [1, 0, 1], 0.0),
        ([1, 1, 1], [1, 0, 1], 0.8),  # precision 2/3, recall 1
        ([1, 0, 1], [0, 0, 0], 0.0),
    ],
)
def test_one_class_alone_gives_documented_values_and_no_warning(predictions, labels, f1):
    given = torch.tensor(predictions, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS["f1"](*given).item() == pytest.approx(f1)
        assert METRICS["matthews"](*given).item() == 0.0
    assert math.isnan(METRICS["accuracy"](*given).item()) == (not labels)


@pytest.mark.parametrize(
    ("name", "score"),
    # Always class 1: 7 of 10 correct; F1 with precision 0.7 and recall 1. A constant has correlation 0.
    [("accuracy", 0.7), ("f1", 2 * 0.7 / 1.7), ("matthews", 0.0)],
)
def test_what_a_constant_answer_scores(name, score):
    labels = torch.tensor([1] * 7 + [0] * 3)
    assert constant_score(labels, name, 2) == pytest.approx(score)


def test_f1_is_of_class_1_whichever_is_the_larger():
    labels = torch.tensor([1] * 3 + [0] * 7)
    assert constant_score(labels, "accuracy", 2) == 0.7
    assert constant_score(labels, "f1", 2) == pytest.approx(2 * 0.3 / 1.3)


@pytest.mark.launcher
def test_scikit_learn_is_imported_only_where_a_metric_needs_it():
    program = "import trainables.data.text.metrics, sys; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
