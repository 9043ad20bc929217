"""Linear models: ridge regression and logistic regression on standardized features, by scikit-learn."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.learners.job import ArrayModel, FitJob, as_predictions
from automl_ext.tabular.table.task import Array
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Range

ITERATIONS, PASSES = 25, 8  # of a logistic regression between two looks at the clock; most such passes
MOST_EXACT = 1000  # rows and columns of an exact solution, whose time grows with the cube
MOST_INDICATORS = 50  # categories of one feature; the others have no indicator


@dataclass
class LinearSettings:
    """Settings of a linear model."""

    penalty: Annotated[float, Range(1e-3, 1e3, log=True)] = 1.0
    """L2 penalty of the weights."""

    def __post_init__(self) -> None:
        check_range(self, "penalty", above=0)


def train(settings: LinearSettings, job: FitJob) -> LinearModel:
    """Train a model. A category's code becomes indicators, a missing number the mean."""
    linear = library("sklearn.linear_model")
    categorical = np.zeros(job.train.x.shape[1], dtype=np.int64)
    for i in job.train.categorical:
        codes = job.train.x[:, i]
        known = codes[~np.isnan(codes)]
        categorical[i] = min(int(known.max()) + 1, MOST_INDICATORS) if len(known) else 1
    wide = _widen(job.train.x, categorical)
    empty = np.isnan(wide).all(0)
    mean = np.where(empty, 0.0, np.nanmean(np.where(empty, 0.0, wide), axis=0))
    scale = np.nanstd(np.where(empty, 0.0, wide), axis=0)
    scale = np.where(scale > 1e-12 * (1 + np.abs(mean)), scale, np.inf)  # a constant feature has no effect
    x = _standardize(wide, mean, scale)
    if job.task.is_classification:
        model = linear.LogisticRegression(C=1 / settings.penalty, max_iter=ITERATIONS, tol=1e-3, warm_start=True)
        labels = np.unique(job.y)
        if len(labels) == 1:
            coef, intercept = np.zeros((1, x.shape[1])), np.zeros(1)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # all iterations are near enough to the optimum
                for _ in range(PASSES):
                    model.fit(x, job.y, sample_weight=job.weight)
                    if model.n_iter_.max() < ITERATIONS or time.monotonic() > job.deadline:
                        break
            coef, intercept = model.coef_, model.intercept_
        weight, bias = _per_class(coef, intercept, labels, len(job.task.classes))
    else:
        solver = "lsqr" if min(x.shape) > MOST_EXACT else "auto"
        model = linear.Ridge(settings.penalty, solver=solver, max_iter=ITERATIONS * PASSES)
        model.fit(x, job.y, sample_weight=job.weight)
        weight, bias = model.coef_[None], np.array([model.intercept_])
    arrays = {"categorical": categorical, "mean": mean, "scale": scale, "weight": weight, "bias": bias}
    return LinearModel(arrays, job.task)


def _widen(x: Array, categorical: Array) -> Array:
    """Replace codes by indicators: [N, features] → [N, wide]."""
    parts = []
    for i, count in enumerate(categorical):
        parts.append((x[:, i, None] == np.arange(count)).astype(np.float64) if count else x[:, i, None])
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(x), 0))


def _standardize(wide: Array, mean: Array, scale: Array) -> Array:
    """Standardize, with missing values 0 and outliers cut at 10 standard deviations."""
    return np.clip(np.nan_to_num((wide - mean) / scale, nan=0.0), -10, 10)


def _per_class(coef: Array, intercept: Array, labels: Array, classes: int) -> tuple[Array, Array]:
    """Return weights [classes, wide] and biases [classes]; a class without training rows has the bias −∞."""
    weight, bias = np.zeros((classes, coef.shape[1])), np.full(classes, -np.inf)
    if len(labels) == 2:  # scikit-learn has one row for two classes
        weight[labels[1]], bias[labels] = coef[0], [0.0, intercept[0]]
    else:
        weight[labels], bias[labels] = coef, intercept
    return weight, bias


class LinearModel(ArrayModel):
    """A trained linear model."""

    names = ("categorical", "mean", "scale", "weight", "bias")

    def predict(self, x: Array, rounds: int = 0) -> Array:
        a = self.arrays
        score = _standardize(_widen(x, a["categorical"]), a["mean"], a["scale"]) @ a["weight"].T + a["bias"]
        if not self.task.is_classification:
            return as_predictions(score[:, 0], self.task)
        exponential = np.exp(score - score.max(1, keepdims=True)) if len(score) else score
        return exponential / exponential.sum(1, keepdims=True)

    def importance(self, rounds: int) -> Array:
        """Sum the absolute standardized weights of each feature."""
        widths = np.maximum(self.arrays["categorical"], 1)
        sums = np.abs(self.arrays["weight"]).sum(0)
        return np.add.reduceat(sums, np.cumsum([0, *widths])[:-1]) if len(widths) else sums
