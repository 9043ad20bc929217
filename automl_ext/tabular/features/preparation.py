"""Preparation: converts the cleaned table to a matrix, with statistics of the training rows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.features.families import FAMILIES, Named, Rows, State
from automl_ext.tabular.table.columns import Column
from automl_ext.tabular.table.task import Array, TableTask
from automl_ext.training.checks import LARGEST

MOST_CATEGORIES = 250  # the trees' histograms have 255 bins; rarer categories count as missing
MOST_INDICATORS = 10  # target means of more classes would be too many features


@dataclass(frozen=True)
class Matrix:
    """Prepared rows.

    Attributes:
        x: float64 [N, features], NaN where a value is missing or a category unknown.
        categorical: numbers of the features that are category codes.
    """

    x: Array
    names: list[str]
    categorical: list[int]


@dataclass(frozen=True)
class Preparation:
    """Preparation of features, fitted on training rows.

    Attributes:
        columns: the used columns.
        categories: per categorical column its categories; the code of a category is its position.
        families: name of a family → its state.
    """

    columns: list[Column]
    categories: dict[str, list[str]]
    families: dict[str, State]

    def apply(self, frame: Any) -> Matrix:
        """Return the matrix of cleaned rows."""
        return self._matrix(frame, {})

    def feature_names(self) -> list[str]:
        """Return the names of the features, in the order of the matrix's columns."""
        empty = {
            column.name: np.zeros(0, dtype=object if column.kind in ("categorical", "text") else np.float64)
            for column in self.columns
        }
        return self.apply(library("pandas").DataFrame(empty)).names

    def _matrix(self, frame: Any, training: dict[str, Named]) -> Matrix:
        named: Named = []
        categorical = []
        plain = [column.name for column in self.columns if column.kind not in ("categorical", "text")]
        numbers = dict(zip(plain, frame[plain].to_numpy(dtype=np.float64).T, strict=True))  # column by column is slow
        for column in self.columns:
            if column.kind == "categorical":
                if len(self.categories[column.name]) > 2:
                    categorical.append(len(named))
                named.append((column.name, _codes(frame[column.name], self.categories[column.name])))
            elif column.kind == "text":
                values = frame[column.name]
                named.append((f"characters of {column.name}", values.str.len().to_numpy(dtype=np.float64)))
                named.append((f"words of {column.name}", values.str.split().str.len().to_numpy(dtype=np.float64)))
            else:
                named.append((column.name, numbers[column.name]))
        for family, state in self.families.items():
            named += training[family] if family in training else FAMILIES[family].apply(frame, state)
        x = np.column_stack([values for _, values in named]) if named else np.zeros((len(frame), 0))
        x = np.clip(x, -LARGEST, LARGEST)  # XGBoost computes in float32 and refuses infinite numbers
        return Matrix(x, [name for name, _ in named], categorical)


def prepare(
    frame: Any, columns: list[Column], y: Array, task: TableTask, families: Sequence[str] = (), seed: int = 0
) -> tuple[Preparation, Matrix]:
    """Learn a preparation from training rows. Return it and the matrix of these rows.

    Args:
        frame: the cleaned training rows.
        columns: its used columns, the most important first if ``families`` combine columns.
        y: class numbers or numbers, [N].
        families: names of families of features.
        seed: seed of the inner folds of the target means.
    """
    categories = {
        column.name: sorted(frame[column.name].value_counts().index[:MOST_CATEGORIES])
        for column in columns
        if column.kind == "categorical"
    }
    rows = Rows(frame, columns, indicators(y, task), seed)
    states = {name: FAMILIES[name].fit(rows) for name in families}
    special = {name: training(rows) for name in families if (training := FAMILIES[name].training) is not None}
    position = {name: i for i, name in enumerate(frame.columns)}
    in_order = sorted(columns, key=lambda column: position[column.name])
    preparation = Preparation(in_order, categories, states)
    return preparation, preparation._matrix(frame, special)


def indicators(y: Array, task: TableTask) -> Array:
    """Return the number to predict, or an indicator of each class, one for two classes: [N, m]."""
    if task.kind == "regression":
        return y[:, None].astype(np.float64)
    first = 1 if task.kind == "binary" else 0
    classes = range(first, min(len(task.classes), first + MOST_INDICATORS))
    return np.stack([y == k for k in classes], axis=1).astype(np.float64)


def _codes(values: Any, categories: list[str]) -> Array:
    position = {category: float(i) for i, category in enumerate(categories)}
    return values.map(position).to_numpy(dtype=np.float64)
