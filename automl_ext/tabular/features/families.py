"""Families of constructed features.

Each family has ``fit``, which learns a state of plain Python from training rows, and ``apply``, which computes the
features of any rows from it. A row's features depend on its own values and the state, and on no other row.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from automl_ext.tabular.table.columns import Column
from automl_ext.tabular.table.task import Array

SMOOTHING = 20.0  # rows of the prior in a target mean (Micci-Barreca 2001)
INNER_FOLDS = 5  # of the out-of-fold target encoding
NUMBERS, GROUPS = 4, 3  # how many of the most important columns are combined

Named = list[tuple[str, Array]]
State = dict[str, Any]


class Rows(NamedTuple):
    """Training rows from which families learn.

    Attributes:
        frame: the cleaned table.
        columns: its columns, the most important first.
        targets: [N, m]: the number to predict, or an indicator of each class (one for two classes).
        seed: seed of the inner folds.
    """

    frame: Any
    columns: list[Column]
    targets: Array
    seed: int

    def names(self, kind: str) -> list[str]:
        return [column.name for column in self.columns if column.kind == kind]


def fit_dates(rows: Rows) -> State:
    """Fit the parts of dates: year, month, day of the week, day of the year, hour."""
    return {"columns": rows.names("date")}


def apply_dates(frame: Any, state: State) -> Named:
    found: Named = []
    for name in state["columns"]:
        days = frame[name].to_numpy(dtype=np.float64)
        missing = np.isnan(days)
        stamps = (np.where(missing, 0, days) * 86_400).round().astype("datetime64[s]")
        year, month = stamps.astype("datetime64[Y]"), stamps.astype("datetime64[M]")
        whole = np.floor(days)
        parts = {
            "year": year.astype(int) + 1970,
            "month": month.astype(int) % 12 + 1,
            "weekday": (whole + 3) % 7,  # 1970-01-01 was a Thursday
            "day of year": whole - year.astype("datetime64[D]").astype(int),
            "hour": (days - whole) * 24,
        }
        found += [(f"{part} of {name}", np.where(missing, np.nan, values)) for part, values in parts.items()]
    return found


def fit_frequencies(rows: Rows) -> State:
    """Fit frequencies: the logarithm of the number of training rows that have the category."""
    return {name: rows.frame[name].value_counts().to_dict() for name in rows.names("categorical")}


def apply_frequencies(frame: Any, state: State) -> Named:
    return [
        (f"frequency of {name}", np.log1p(frame[name].map(counts).fillna(0).to_numpy(dtype=np.float64)))
        for name, counts in state.items()
    ]


def fit_target_means(rows: Rows) -> State:
    """Fit target means: over the training rows that have the category, smoothed towards the mean of all rows."""
    return {name: _means(rows.frame[name], rows.targets) for name in rows.names("categorical")}


def apply_target_means(frame: Any, state: State) -> Named:
    return [
        (f"target mean {i} of {name}", column)
        for name, means in state.items()
        for i, column in enumerate(_look_up(frame[name], means).T)
    ]


def target_means_out_of_fold(rows: Rows) -> Named:
    """Return the target means of the training rows. Those of a row come from the inner folds that do not contain it."""
    fold = np.random.default_rng(rows.seed).permutation(len(rows.frame)) % INNER_FOLDS
    found: Named = []
    for name in rows.names("categorical"):
        values = rows.frame[name].reset_index(drop=True)
        means = np.empty((len(values), rows.targets.shape[1]))
        for k in range(INNER_FOLDS):
            inside = fold == k
            means[inside] = _look_up(values[inside], _means(values[~inside], rows.targets[~inside]))
        found += [(f"target mean {i} of {name}", column) for i, column in enumerate(means.T)]
    return found


def _means(values: Any, targets: Array) -> State:
    """Return the smoothed mean of the targets per category, and the prior, which unseen categories take."""
    prior = targets.mean(0)
    codes, categories = values.reset_index(drop=True).factorize()
    known = codes >= 0
    counts = np.bincount(codes[known], minlength=len(categories))
    sums = np.stack([np.bincount(codes[known], t[known], minlength=len(categories)) for t in targets.T], axis=1)
    means = (sums + SMOOTHING * prior) / (counts + SMOOTHING)[:, None]
    return {"prior": prior.tolist(), "means": dict(zip(categories.tolist(), means.tolist(), strict=True))}


def _look_up(values: Any, state: State) -> Array:
    """Return the means of each row's category: [N, m]."""
    codes, categories = values.factorize()
    table = np.array([*(state["means"].get(c, state["prior"]) for c in categories), state["prior"]], dtype=np.float64)
    return table[codes]  # a missing category has the code -1, the prior


def fit_groups(rows: Rows) -> State:
    """Fit group means: the mean of a number over the training rows of a category; the difference is a feature, too."""
    found: State = {}
    for category in rows.names("categorical")[:GROUPS]:
        for number in rows.names("numeric")[:GROUPS]:
            x = rows.frame[number]
            means = x.groupby(rows.frame[category].to_numpy()).mean().dropna()
            found.setdefault(category, {})[number] = {"all": float(x.mean()), "means": means.to_dict()}
    return found


def apply_groups(frame: Any, state: State) -> Named:
    found: Named = []
    for category, numbers in state.items():
        for number, group in numbers.items():
            means = frame[category].map(group["means"]).fillna(group["all"]).to_numpy(dtype=np.float64)
            found.append((f"mean {number} by {category}", means))
            found.append((f"{number} less its mean by {category}", frame[number].to_numpy(dtype=np.float64) - means))
    return found


def fit_arithmetic(rows: Rows) -> State:
    """Fit differences, products and ratios of the most important numbers."""
    return {"pairs": [list(pair) for pair in combinations(rows.names("numeric")[:NUMBERS], 2)]}


def apply_arithmetic(frame: Any, state: State) -> Named:
    found: Named = []
    for first, second in state["pairs"]:
        a, b = (frame[name].to_numpy(dtype=np.float64) for name in (first, second))
        with np.errstate(all="ignore"):
            ratio = np.where(b == 0, np.nan, a / b)
        found += [(f"{first} - {second}", a - b), (f"{first} * {second}", a * b), (f"{first} / {second}", ratio)]
    return found


class Family(NamedTuple):
    """A family of features.

    Attributes:
        fit, apply: see this module.
        training: computes the features of the training rows themselves, if not by ``apply``.
        needs: a kind of columns without which the family has no features.
        by_default: whether it is used if there is no time to judge it, and otherwise kept unless it harms.
    """

    fit: Callable[[Rows], State]
    apply: Callable[[Any, State], Named]
    needs: str
    training: Callable[[Rows], Named] | None = None
    by_default: bool = False


FAMILIES = {
    "dates' parts": Family(fit_dates, apply_dates, "date", by_default=True),
    "target means": Family(fit_target_means, apply_target_means, "categorical", target_means_out_of_fold),
    "frequencies": Family(fit_frequencies, apply_frequencies, "categorical"),
    "arithmetic": Family(fit_arithmetic, apply_arithmetic, "numeric"),
    "group means": Family(fit_groups, apply_groups, "categorical"),
}
