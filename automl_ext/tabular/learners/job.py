"""Inputs and results of a learner."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from automl_ext.tabular.features.preparation import Matrix
from automl_ext.tabular.table.task import Array, TableTask
from automl_ext.training.files.npz import read_all


@dataclass(frozen=True)
class FitJob:
    """Rows to learn from.

    Attributes:
        train: the training rows.
        y: their class numbers, or the numbers as :meth:`TableTask.scaled` returns them.
        valid, valid_y: rows for early stopping; None: train all rounds.
        weight, valid_weight: weights of the rows; None: all are equal.
        seed: seed of all randomness.
        deadline: the time of ``time.monotonic`` at which training ends, with the rounds that are done.
    """

    task: TableTask
    train: Matrix
    y: Array
    valid: Matrix | None = None
    valid_y: Array | None = None
    weight: Array | None = None
    valid_weight: Array | None = None
    seed: int = 0
    threads: int = 1
    deadline: float = float("inf")


class Model(Protocol):
    """A trained model.

    Attributes:
        rounds: the number of rounds with the lowest validation loss; 0 for a model without rounds.
        was_cut: whether the deadline ended the training.
    """

    rounds: int
    was_cut: bool

    def predict(self, x: Array, rounds: int) -> Array:
        """Predict probabilities [N, classes] or numbers [N], with the first ``rounds`` rounds."""
        ...

    def importance(self, rounds: int) -> Array:
        """Return the importance of each feature in the first ``rounds`` rounds, at least 0: [features]."""
        ...

    def save(self, path: Path) -> None:
        """Write the model to a file."""
        ...


class ArrayModel:
    """A model that consists of arrays, as its file does; a subclass lists their ``names``."""

    names: tuple[str, ...]
    rounds = 0

    def __init__(self, arrays: dict[str, Array], task: TableTask, was_cut: bool = False) -> None:
        self.arrays, self.task, self.was_cut = arrays, task, was_cut

    def save(self, path: Path) -> None:
        np.savez_compressed(path, allow_pickle=False, **self.arrays)

    @classmethod
    def load(cls, path: Path, task: TableTask) -> ArrayModel:
        """Read a model. Raises UserError if the file is damaged."""
        return cls(read_all(path, cls.names), task)


class TableLearner(NamedTuple):
    """A kind of model.

    Attributes:
        settings: the class of its settings, a dataclass.
        train: (settings, job) → model.
        load: (path, task) → model.
        suffix: suffix of its files.
    """

    settings: type
    train: Any
    load: Any
    suffix: str


@dataclass
class Stopper:
    """Ends boosting when the validation loss has not improved for ``patience`` rounds, or at the deadline.

    With patience 0, all rounds are done, and all of them are used.
    """

    patience: int
    deadline: float
    best: float = float("inf")
    best_rounds: int = 0
    was_cut: bool = False

    def is_over(self, rounds: int, value: float | None) -> bool:
        """Record the loss after ``rounds`` rounds. Return whether training ends."""
        if value is None or not self.patience:
            self.best_rounds = rounds
        elif value < self.best:
            self.best, self.best_rounds = value, rounds
        if time.monotonic() > self.deadline:
            self.was_cut = True
            return True
        return bool(self.patience) and rounds - self.best_rounds >= self.patience


def as_predictions(raw: Array, task: TableTask) -> Array:
    """Convert a model's output to probabilities [N, classes], or to numbers in the units of the target [N].

    A binary model may return the probability of the second class only, [N].
    """
    if task.kind == "binary" and raw.ndim == 1:
        return np.stack([1 - raw, raw], axis=1)
    return task.unscaled(raw)
