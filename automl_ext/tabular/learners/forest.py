"""Forests of randomized trees, grown by scikit-learn and evaluated by NumPy, so that their files need no pickle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.learners.job import ArrayModel, FitJob, as_predictions
from automl_ext.tabular.table.task import Array, TableTask
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.search_space import Categories, Range

STEP = 10  # trees between two looks at the clock


@dataclass
class ForestSettings:
    """Settings of a forest."""

    trees: int = 100
    """Number of trees."""
    max_features: Annotated[float, Range(0.1, 1.0)] = 0.4
    """Share of the features that each split may use, drawn at random."""
    min_samples_leaf: Annotated[int, Range(1, 32, log=True)] = 2
    """Smallest number of rows in a leaf."""
    extra: Annotated[bool, Categories(True, False)] = True
    """Extremely randomized trees (Geurts et al. 2006) instead of a random forest (Breiman 2001)."""

    def __post_init__(self) -> None:
        check_range(self, "trees", low=1, high=10_000)
        check_range(self, "max_features", above=0, high=1)
        check_range(self, "min_samples_leaf", low=1)


def train(settings: ForestSettings, job: FitJob) -> ForestModel:
    """Grow a forest, a few trees at a time; missing values become each feature's median."""
    ensemble = library("sklearn.ensemble")
    kind = ("ExtraTrees" if settings.extra else "RandomForest") + (
        "Classifier" if job.task.is_classification else "Regressor"
    )
    fill = _medians(job.train.x)
    x = np.where(np.isnan(job.train.x), fill, job.train.x).astype(np.float32)
    forest = getattr(ensemble, kind)(
        n_estimators=0,
        warm_start=True,
        max_features=settings.max_features,
        min_samples_leaf=settings.min_samples_leaf,
        n_jobs=job.threads,
        random_state=job.seed,
    )
    started = time.monotonic()
    for trees in [*range(STEP, settings.trees, STEP), settings.trees]:
        forest.n_estimators = trees
        forest.fit(x, job.y, sample_weight=job.weight)
        now = time.monotonic()
        step = (now - started) / trees * STEP
        if trees < settings.trees and now + step > job.deadline:
            break
    labels = forest.classes_ if job.task.is_classification else None
    outputs = len(job.task.classes) if job.task.is_classification else 1
    arrays = _arrays([tree.tree_ for tree in forest.estimators_], labels, outputs)
    arrays |= {"fill": fill, "importance": forest.feature_importances_}
    return ForestModel(arrays, job.task, was_cut=forest.n_estimators < settings.trees)


def _medians(x: Array) -> Array:
    """Return the median of each feature's present values; 0 where there is none."""
    empty = np.isnan(x).all(0)
    return np.where(empty, 0.0, np.nanmedian(np.where(empty, 0.0, x), axis=0))


def _arrays(trees: list[Any], labels: Array | None, outputs: int) -> dict[str, Array]:
    """Return the nodes of all trees, one after the other, with children that are numbers of nodes.

    A leaf is its own child.
    """
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    own = np.arange(len(leaf))
    left, right = (
        np.concatenate([getattr(tree, name) + root for tree, root in zip(trees, roots, strict=True)])
        for name in ("children_left", "children_right")
    )
    value = np.concatenate([tree.value[:, 0, :] for tree in trees])
    if labels is not None:  # a class without training rows has probability 0
        whole = np.zeros((len(value), outputs))
        whole[:, labels] = value / value.sum(1, keepdims=True)
        value = whole
    threshold = np.concatenate([tree.threshold for tree in trees])
    rounded = threshold.astype(np.float32)  # downwards: the features are float32, so the comparisons stay the same
    rounded = np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return {
        "roots": roots,
        "feature": np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
        "threshold": rounded,
        "left": np.where(leaf, own, left).astype(np.int32),
        "right": np.where(leaf, own, right).astype(np.int32),
        "value": value.astype(np.float32),
    }


class ForestModel(ArrayModel):
    """A forest, as arrays over the nodes of all trees."""

    names = ("roots", "feature", "threshold", "left", "right", "value", "fill", "importance")

    def predict(self, x: Array, rounds: int = 0) -> Array:
        a = self.arrays
        x = np.where(np.isnan(x), a["fill"], x).astype(np.float32)
        rows = np.arange(len(x))
        total = np.zeros((len(x), a["value"].shape[1]))
        for root in a["roots"]:
            node = np.full(len(x), root)
            active = rows
            while len(active):
                at = node[active]
                goes_left = x[active, a["feature"][at]] <= a["threshold"][at]
                following = np.where(goes_left, a["left"][at], a["right"][at])
                moved = following != at
                node[active] = following
                active = active[moved]
            total += a["value"][node]
        mean = total / len(a["roots"])
        return as_predictions(mean if self.task.is_classification else mean[:, 0], self.task)

    def importance(self, rounds: int) -> Array:
        return self.arrays["importance"]

    @classmethod
    def load(cls, path: Path, task: TableTask) -> ArrayModel:
        """Read a forest.

        Raises:
            UserError: the file is damaged; every child comes after its parent, so that no prediction hangs.
        """
        model = super().load(path, task)
        nodes = np.arange(len(model.arrays["left"]))
        for name in ("left", "right"):
            child = model.arrays[name]
            if child.shape != nodes.shape or not ((child >= nodes) & (child < len(nodes))).all():
                raise UserError(f"{path}: expected {name} children that follow their parents")
        return model
