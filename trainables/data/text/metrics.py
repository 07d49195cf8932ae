"""GLUE metrics for predicted classes. Undefined metrics are 0.

scikit-learn computes F1 and Matthews' correlation. It is imported on first use, because most trials report neither.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.spec.glue import Metric


def accuracy(predictions: Tensor, labels: Tensor) -> Tensor:
    """Compute the fraction of correct predictions.

    Args:
        predictions: (N,) int64, predicted classes.
        labels: (N,) int64.

    Returns:
        Scalar float64, a fraction.
    """
    return (predictions == labels).double().mean()


def f1(predictions: Tensor, labels: Tensor) -> Tensor:
    """Compute the F1 score of class 1: the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).

    Args:
        predictions: (N,) int64, two classes.
        labels: (N,) int64.

    Returns:
        Scalar float64, 0 to 1. 0 if class 1 occurs neither in predictions nor in labels.
    """
    from sklearn.metrics import f1_score

    if not len(labels):
        return _scalar(0.0, labels)
    return _scalar(f1_score(_is_class_1(labels), _is_class_1(predictions), zero_division=0.0), labels)


def matthews(predictions: Tensor, labels: Tensor) -> Tensor:
    """Compute Matthews' correlation of two classes: the correlation of predictions and labels as numbers.

    Args:
        predictions: (N,) int64, two classes.
        labels: (N,) int64.

    Returns:
        Scalar float64, -1 to 1. 0 if all predictions or all labels are of one class.

    Source:
        Matthews, Comparison of the Predicted and Observed Secondary Structure of T4 Phage Lysozyme (1975).
    """
    from sklearn.metrics import matthews_corrcoef

    true, predicted = _is_class_1(labels), _is_class_1(predictions)
    if not true.any() or true.all() or not predicted.any() or predicted.all():
        return _scalar(0.0, labels)  # scikit-learn prints a warning if both are of one class
    return _scalar(matthews_corrcoef(true, predicted), labels)


def constant_score(labels: Tensor, metric: Metric, num_classes: int) -> float:
    """Compute the best score for predicting the same class for every sample.

    For accuracy this is the largest class's fraction. For Matthews' correlation it is 0.

    Args:
        labels: (N,) int64.
        metric: metric name.
        num_classes: number of classes.
    """
    return max(float(METRICS[metric](torch.full_like(labels, label), labels)) for label in range(num_classes))


def _is_class_1(classes: Tensor) -> NDArray[np.bool_]:
    return np.asarray((classes == 1).cpu().numpy())


def _scalar(value: float, like: Tensor) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device=like.device)


METRICS: Final[dict[Metric, Callable[[Tensor, Tensor], Tensor]]] = {
    "accuracy": accuracy,
    "matthews": matthews,
    "f1": f1,
}
