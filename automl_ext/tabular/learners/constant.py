"""The best constant prediction, which other models must beat: the class frequencies, the mean or the median."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automl_ext.tabular.learners.job import ArrayModel, FitJob, as_predictions
from automl_ext.tabular.table.metrics import mean
from automl_ext.tabular.table.task import Array


@dataclass
class ConstantSettings:
    """A constant has no settings."""


def train(settings: ConstantSettings, job: FitJob) -> ConstantModel:
    """Compute the constant with the lowest loss; classes without training rows share the probability of one row."""
    if job.task.is_classification:
        counts = np.bincount(job.y, job.weight, len(job.task.classes))
        missing = counts == 0
        value = np.where(missing, 1 / max(1, missing.sum()), counts)
        value = value / value.sum()
    else:
        value = np.array([_median(job.y, job.weight) if job.task.metric == "mae" else mean(job.y, job.weight)])
    return ConstantModel({"value": value, "features": np.array([job.train.x.shape[1]])}, job.task)


def _median(y: Array, weight: Array | None) -> float:
    if weight is None or not weight.any():
        return float(np.median(y))
    order = np.argsort(y, kind="stable")
    total = np.cumsum(weight[order])
    return float(y[order][np.searchsorted(total, total[-1] / 2)])


class ConstantModel(ArrayModel):
    """A constant prediction."""

    names = ("value", "features")

    def predict(self, x: Array, rounds: int = 0) -> Array:
        found = np.tile(self.arrays["value"], (len(x), 1))
        return as_predictions(found if self.task.is_classification else found[:, 0], self.task)

    def importance(self, rounds: int) -> Array:
        return np.zeros(int(self.arrays["features"][0]))
