"""The task: the target, its kind (classification or regression), and the measure of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.dates import are_dates, date_order
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

Kind = Literal["binary", "multiclass", "regression"]
Array = NDArray[Any]

MOST_CLASSES = 100
FEW_INTEGERS = 20  # integers with at most this number of values are classes
METRICS = {"classification": ("log_loss", "auc", "accuracy"), "regression": ("rmse", "mae")}
HIGHER_IS_BETTER = ("auc", "accuracy")


@dataclass(frozen=True)
class TableTask:
    """The prediction task: target, kind and measure.

    Attributes:
        target: name of the column.
        kind: "binary", "multiclass" or "regression".
        classes: the labels in the order of the columns of probabilities; () for regression.
        metric: the measure by which models are compared.
        why: the reason for the kind, for the user.
        center, scale: median and interquartile range of the target of a regression. The learners get
            (y − center) / scale, because most of them compute in float32, which cannot tell large numbers apart.
    """

    target: str
    kind: Kind
    classes: tuple[Any, ...]
    metric: str
    why: str
    center: float = 0.0
    scale: float = 1.0

    @property
    def is_classification(self) -> bool:
        return self.kind != "regression"

    def encode(self, values: Any) -> Array:
        """Convert a column to class numbers (int64), or to float64."""
        if not self.is_classification:
            return np.asarray(values, dtype=np.float64)
        index = {label: i for i, label in enumerate(self.classes)}
        if all(isinstance(label, str) for label in self.classes):
            return np.array([index[str(plain(value))] for value in values], dtype=np.int64)
        return np.array([index[plain(value)] for value in values], dtype=np.int64)

    def scaled(self, y: Array) -> Array:
        """Standardize the target of a regression; class numbers stay as they are."""
        return y if self.is_classification else (y - self.center) / self.scale

    def unscaled(self, y: Array) -> Array:
        """Invert :meth:`scaled`."""
        return y if self.is_classification else y * self.scale + self.center


def plain(value: Any) -> Any:
    """Return a label as plain Python: a bool, int, float or str."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return int(value) if float(value).is_integer() else float(value)
    return str(value)


def find_task(values: Any, target: str, metric: str | None = None, kind: str | None = None) -> TableTask:
    """Infer the task from the target's values, which has no missing ones.

    Text, booleans and categories are classes. Two different numbers are classes, and so are integers with at most
    ``FEW_INTEGERS`` values of which each occurs five times on average. Other numbers are a regression.

    Raises:
        UserError: the values cannot be predicted, or the metric does not fit.
    """
    pandas = library("pandas")
    number = pandas.api.types.is_numeric_dtype(values.dtype) and not pandas.api.types.is_bool_dtype(values.dtype)
    if values.dtype.kind in "mM" or (kind is None and not number and _are_texts_of_dates(values)):
        raise UserError(
            f"target {target!r}: expected numbers or classes, got dates or durations: convert them to numbers"
        )
    labels = list(dict.fromkeys(plain(value) for value in values.unique()))
    if len(labels) < 2:
        raise UserError(f"target {target!r}: expected at least two different values, got only {short(*labels)}")
    whole = number and bool((np.asarray(values, dtype=np.float64) % 1 == 0).all())
    if kind is not None:
        why = "as given"
    elif not number:
        what = "text" if isinstance(labels[0], str) else "not numbers"
        kind, why = "classification", f"its {len(labels)} values are {what}"
    elif len(labels) == 2:
        kind, why = "classification", "it has two values"
    elif whole and len(labels) <= FEW_INTEGERS and len(values) >= 5 * len(labels):
        kind, why = "classification", f"it has {len(labels)} values, all integers"
    else:
        kind, why = "regression", f"it has {len(labels)} different numbers"
    if kind == "classification" and len(labels) > MOST_CLASSES:
        raise UserError(f"target {target!r}: expected at most {MOST_CLASSES} classes, got {len(labels)}")
    if kind == "regression" and not number:
        raise UserError(f"target {target!r}: regression expects numbers, got {short(labels[0])}")
    if any(isinstance(label, str) for label in labels):  # of mixed types, all become text
        labels = list(dict.fromkeys(str(label) for label in labels))
    allowed = METRICS[kind]
    chosen = metric or allowed[0]
    if chosen not in allowed:
        raise UserError(f"metric: expected {' or '.join(allowed)} for {kind}, got {short(metric)}")
    if kind == "regression":
        return TableTask(target, "regression", (), chosen, why, *_center_and_scale(np.asarray(values, np.float64)))
    ordered = tuple(sorted(labels, key=lambda label: (isinstance(label, str), label)))
    return TableTask(target, "binary" if len(ordered) == 2 else "multiclass", ordered, chosen, why)


def _are_texts_of_dates(values: Any) -> bool:
    """Return whether a column of more than two different objects has only dates."""
    texts = values.drop_duplicates().astype(str)
    return len(texts) > 2 and are_dates(texts, date_order(texts)[0])


def _center_and_scale(y: Array) -> tuple[float, float]:
    """Return the median and the interquartile range, which single huge values do not change; see :class:`TableTask`."""
    low, center, high = (float(value) for value in np.quantile(y, (0.25, 0.5, 0.75)))
    largest = float(np.abs(y - center).max())
    if high > low:
        return center, high - low
    return center, largest or 1.0  # 0: the values differ by less than the rounding of their median
