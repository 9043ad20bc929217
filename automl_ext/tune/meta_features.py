"""Meta-features of a table: a few numbers by which :func:`automl_ext.tune.experience.nearest` finds similar tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def meta_features(frame: pd.DataFrame, target: str, classes: bool) -> dict[str, float]:
    """Return the meta-features of a table.

    Args:
        frame: training rows; the other columns than ``target`` are the features.
        target: name of the target's column.
        classes: whether the target is a class (True) or a number (False).

    Returns:
        rows, columns: logarithms to base 10.
        categorical, missing: share of the columns that are not numbers; share of the values that are missing.
        cardinality: logarithm to base 10 of the largest number of different values of a column of categories.
        classes, balance: number of classes, and entropy of the classes divided by its maximum; 0 and 1 for a number.
        skewness: median over numeric columns of log(1 + |skewness|).
        target_skewness: log(1 + |skewness|) of the target; 0 for classes.

    Raises:
        ValueError: ``frame`` is empty or has no such column.
    """
    if target not in frame.columns or len(frame) == 0:
        raise ValueError(f"frame: expected rows and a column {target!r}, got {len(frame)} rows, {list(frame.columns)}")
    features, values = frame.drop(columns=target), frame[target].dropna()
    numbers = features.select_dtypes(include="number")
    others = features.drop(columns=list(numbers.columns))
    shares = values.value_counts(normalize=True).to_numpy() if classes else np.array([])
    shares = shares[shares > 0]  # a column of categories also counts those that do not occur
    skews = [_skewness(numbers[name].to_numpy(dtype=float)) for name in numbers.columns]
    return {
        "rows": math.log10(len(frame)),
        "columns": math.log10(max(1, features.shape[1])),
        "categorical": others.shape[1] / max(1, features.shape[1]),
        "missing": float(features.isna().to_numpy().mean()) if features.shape[1] else 0.0,
        "cardinality": math.log10(max([1, *(others[name].nunique() for name in others.columns)])),
        "classes": float(len(shares)),
        "balance": float(-(shares * np.log(shares)).sum() / math.log(len(shares))) if len(shares) > 1 else 1.0,
        "skewness": float(np.median(skews)) if skews else 0.0,
        "target_skewness": 0.0 if classes else _skewness(values.to_numpy(dtype=float)),
    }


def _skewness(values: np.ndarray) -> float:
    """Return log(1 + |skewness|) of the finite values; 0 if they are equal."""
    values = values[np.isfinite(values)]
    deviation = values.std() if len(values) else 0.0
    if deviation == 0:
        return 0.0
    return math.log1p(abs(float((((values - values.mean()) / deviation) ** 3).mean())))
