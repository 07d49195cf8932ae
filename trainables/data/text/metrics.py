"""GLUE metrics of predicted classes. Undefined metrics are 0, as in scikit-learn."""

from collections.abc import Callable
from typing import Final

import torch
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
    hits = ((predictions == 1) & (labels == 1)).double().sum()
    return 2 * hits / ((predictions == 1).double().sum() + (labels == 1).double().sum()).clamp(min=1)


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
    predicted, true = ((each == 1).double() for each in (predictions, labels))
    covariance = (predicted * true).mean() - predicted.mean() * true.mean()
    spread = (predicted.mean() * (1 - predicted.mean()) * true.mean() * (1 - true.mean())).sqrt()
    return torch.where(spread > 0, covariance / spread.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


def constant_score(labels: Tensor, metric: Metric, num_classes: int) -> float:
    """Compute the best score of predicting the same class for every sample.

    For accuracy this is the fraction of the largest class. For Matthews' correlation it is 0.

    Args:
        labels: (N,) int64.
        metric: name of the metric.
        num_classes: number of classes.
    """
    return max(float(METRICS[metric](torch.full_like(labels, label), labels)) for label in range(num_classes))


METRICS: Final[dict[Metric, Callable[[Tensor, Tensor], Tensor]]] = {
    "accuracy": accuracy,
    "matthews": matthews,
    "f1": f1,
}
