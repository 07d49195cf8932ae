import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from trainables.data.text.metrics import METRICS, constant_score

REFERENCES = {"accuracy": accuracy_score, "matthews": matthews_corrcoef, "f1": f1_score}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_a_measure_is_scikit_learns(name, share):
    random = np.random.default_rng(int(100 * share))
    for shares in ((share, 0.5), (0.3, share), (share, share)):
        predictions, labels = ((random.random(200) < each).astype(np.int64) for each in shares)
        found = METRICS[name](torch.from_numpy(predictions), torch.from_numpy(labels))
        assert found.dtype == torch.float64
        # scikit-learn's arguments are the labels first
        assert found.item() == pytest.approx(REFERENCES[name](labels, predictions), abs=1e-12)


def test_hand_values():
    labels = torch.tensor([1, 1, 1, 0, 0])
    predictions = torch.tensor([1, 1, 0, 1, 0])
    values = {name: metric(predictions, labels).item() for name, metric in METRICS.items()}
    # TP 2, FN 1, FP 1, TN 1: (2·1 - 1·1) / √(3·3·2·2)
    assert values == pytest.approx({"accuracy": 3 / 5, "f1": 4 / 6, "matthews": 1 / 6})


@pytest.mark.parametrize(
    ("name", "score"),
    # Always class 1: 7 of 10 right; F1 with precision 0.7 and recall 1. A constant correlates with nothing.
    [("accuracy", 0.7), ("f1", 2 * 0.7 / 1.7), ("matthews", 0.0)],
)
def test_what_a_constant_answer_scores(name, score):
    labels = torch.tensor([1] * 7 + [0] * 3)
    assert constant_score(labels, name, 2) == pytest.approx(score)


def test_f1_is_of_class_1_whichever_is_the_larger():
    labels = torch.tensor([1] * 3 + [0] * 7)
    assert constant_score(labels, "accuracy", 2) == 0.7
    assert constant_score(labels, "f1", 2) == pytest.approx(2 * 0.3 / 1.3)
