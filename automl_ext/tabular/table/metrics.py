"""Measures of predictions, all computed as losses: lower is better."""

from __future__ import annotations

import numpy as np

from automl_ext.tabular.table.task import HIGHER_IS_BETTER, Array, TableTask
from automl_ext.training.rank_correlation import mean_ranks

TINY = 1e-15


def loss(task: TableTask, y: Array, predicted: Array, metric: str | None = None) -> float:
    """Compute the loss of predictions: 1 − the measure, if more of it is better.

    Args:
        task: has the metric and the number of classes.
        y: class numbers [N], or numbers [N].
        predicted: probabilities [N, classes], or numbers [N].
        metric: in place of the task's.
    """
    metric = metric or task.metric
    if metric == "log_loss":
        return float(-np.log(np.clip(likelihood(y, predicted), TINY, None)).mean())
    if metric == "accuracy":
        return float((predicted.argmax(1) != y).mean())
    if metric == "auc":
        return 1 - auc(y, predicted)
    error = predicted - y
    return float(np.sqrt((error**2).mean())) if metric == "rmse" else float(np.abs(error).mean())


def shown(metric: str, value: float) -> float:
    """Convert a loss to the measure that a user knows."""
    return 1 - value if metric in HIGHER_IS_BETTER else value


def likelihood(y: Array, probabilities: Array) -> Array:
    """Return the probability of each row's class: [N, classes] → [N]."""
    return probabilities[np.arange(len(y)), y]


def auc(y: Array, probabilities: Array) -> float:
    """Compute the area under the ROC curve, one class against the others, weighted by the classes' frequencies.

    Classes without rows, and a class that all rows have, are left out; 0.5 if none is left.
    """
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas: list[float] = []
    weights: list[int] = []
    for k in classes:
        positive = y == k
        n = int(positive.sum())
        if 0 < n < len(y):
            ranks = mean_ranks(probabilities[:, k])
            areas.append((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))
            weights.append(n)
    return float(np.average(areas, weights=weights)) if areas else 0.5
