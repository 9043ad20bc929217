"""Measures of predictions, all computed as losses: lower is better."""

from __future__ import annotations

import numpy as np

from automl_ext.tabular.table.task import HIGHER_IS_BETTER, Array, TableTask

TINY = 1e-15


def loss(task: TableTask, y: Array, predicted: Array, weight: Array | None = None) -> float:
    """Compute the loss of predictions; 1 − the measure for measures of which higher values are better.

    Args:
        task: has the metric and the number of classes.
        y: class numbers [N], or numbers [N].
        predicted: probabilities [N, classes], or numbers [N].
        weight: weight of each row, [N], at least 0; None: all are equal.
    """
    metric = task.metric
    if metric == "log_loss":
        return mean(-np.log(np.clip(likelihood(y, predicted), TINY, None)), weight)
    if metric == "accuracy":
        return mean(predicted.argmax(1) != y, weight)
    if metric == "auc":
        return 1 - auc(y, predicted, weight)
    error = predicted - y
    return float(np.sqrt(mean(error**2, weight))) if metric == "rmse" else mean(np.abs(error), weight)


def mean(values: Array, weight: Array | None) -> float:
    """Compute the weighted mean; the plain one if all weights are 0."""
    return float(values.mean() if weight is None or not weight.any() else np.average(values, weights=weight))


def shown(metric: str, value: float) -> float:
    """Convert a loss to the measure that a user knows."""
    return 1 - value if metric in HIGHER_IS_BETTER else value


def likelihood(y: Array, probabilities: Array) -> Array:
    """Return the probability of each row's class: [N, classes] → [N]."""
    return probabilities[np.arange(len(y)), y]


def auc(y: Array, probabilities: Array, weight: Array | None = None) -> float:
    """Compute the area under the ROC curve, one class against the others, weighted by the classes' frequencies.

    Classes without rows, and a class that all rows have, are left out; 0.5 if none is left.
    """
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    weight = np.ones(len(y)) if weight is None else weight
    areas: list[float] = []
    weights: list[float] = []
    for k in classes:
        positive = weight * (y == k)
        negative = weight - positive
        if positive.any() and negative.any():
            position = np.unique(probabilities[:, k], return_inverse=True)[1]
            equal = np.bincount(position, negative)
            below = np.cumsum(equal) - equal / 2  # with a lower score, and half of the equal ones
            areas.append(float(positive @ below[position]) / float(positive.sum() * negative.sum()))
            weights.append(float(positive.sum()))
    return float(np.average(areas, weights=weights)) if areas else 0.5
