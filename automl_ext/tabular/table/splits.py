"""Splits into training and validation rows: stratified, by time or by group."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.task import Array, TableTask
from automl_ext.training.errors import UserError

Kind = Literal["stratified", "random", "time", "group"]
FEWEST_COPIES = 0.01  # smallest share of the rows that are copies of others, if they are kept in one fold
FIRST_COLUMNS = 20


class RowSplit(NamedTuple):
    """Row numbers of one split."""

    train: Array
    valid: Array


def split_kind(task: TableTask, time: Any, group: Any) -> Kind:
    """Return how rows are split. Raises UserError if both a time and a group are given."""
    if time is not None and group is not None:
        raise UserError("time and group: expected at most one of them")
    if time is not None:
        return "time"
    if group is not None:
        return "group"
    return "stratified" if task.is_classification else "random"


def make_folds(
    kind: Kind,
    y: Array,
    time: Any,
    group: Any,
    count: int,
    seed: int,
    task: TableTask,
    copies: Array | None = None,
) -> list[RowSplit]:
    """Split the rows of a table into folds.

    Args:
        kind: "stratified": each fold has the class proportions of the table. "random": rows are assigned at random.
            "group": all rows of a group are in one fold. "time": fold k trains on the earliest rows and validates on
            those right after them; rows of the same time are never on both sides.
        y: class indices, or the values of the target, [N].
        time: numbers [N] without NaN, for "time".
        group: hashable values [N], for "group".
        count: number of folds, at least 2.
        seed: the seed of the random order.
        task: the task; folds of a classification without ``time`` and ``group`` are stratified.
        copies: codes [N], for "stratified" and "random": rows of one code are in one fold (:func:`find_copies`).

    Returns:
        The training and validation rows of each fold. Many rows of the same time can make fewer folds than ``count``.

    Raises:
        UserError: there are too few rows, groups or times.
    """
    rows = np.arange(len(y))
    if len(rows) < 2 * count:
        raise UserError(f"the table: expected at least {2 * count} rows with a target, got {len(rows)}")
    if kind == "time":
        return _by_time(np.asarray(time), count)
    if kind == "group":
        codes, values = library("pandas").factorize(group)
        if len(values) < count:
            raise UserError(f"group: expected at least {count} groups, got {len(values)}")
        return _by_fold(_group_folds(codes, np.zeros(len(codes), dtype=np.int64), count, seed))
    if copies is not None:
        common = np.bincount(copies)[copies] > len(rows) / (2 * count)  # such a row is no copy but the usual one
        codes = np.unique(np.where(common, copies.max() + 1 + rows, copies), return_inverse=True)[1]
        return _by_fold(_group_folds(codes, y if task.is_classification else np.zeros_like(codes), count, seed))
    order = np.random.default_rng(seed).permutation(len(rows))
    if task.is_classification:  # stratified: the rows of each class, in random order, go to the folds in turn
        order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(rows), dtype=np.int64)
    fold[order] = rows % count
    return _by_fold(fold)


def _by_fold(fold: Array) -> list[RowSplit]:
    return [RowSplit(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]


def _group_folds(codes: Array, strata: Array, count: int, seed: int) -> Array:
    """Return each row's fold: the largest groups first, each to the fold with the fewest rows of its stratum.

    Args:
        codes: the group of each row, [N].
        strata: whole numbers [N]; a group has the stratum of its first row.
        seed: seed of the order of groups with equally many rows.
    """
    sizes = np.bincount(codes)
    stratum = strata[np.unique(codes, return_index=True)[1]]
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold = np.empty(len(sizes), dtype=np.int64)
    filled, total = np.zeros((strata.max() + 1, count), dtype=np.int64), np.zeros(count, dtype=np.int64)
    for group in order:
        fold[group] = best = np.lexsort((total, filled[stratum[group]]))[0]
        filled[stratum[group], best] += sizes[group]
        total[best] += sizes[group]
    return fold[codes]


def find_copies(frame: Any, y: Array, seed: int) -> tuple[Array, Array] | None:
    """Find rows that occur several times, with their target.

    Rows of few categories can be equal by accident. Equal rows count as copies if they are at least the fraction
    ``FEWEST_COPIES`` of the rows, and more than twice as many as after each column is shuffled.

    Args:
        frame: the cleaned table.
        y: class numbers or numbers, [N].
        seed: seed of the shuffling.

    Returns:
        A code per row [N], equal where all features are equal; and whether a row repeats an earlier one, [N]. None if
        there are no copies.
    """
    pandas = library("pandas")
    fewest = max(1, FEWEST_COPIES * len(y))
    columns = [y, *(frame[name].to_numpy() for name in frame.columns)]
    for some in (columns[:FIRST_COLUMNS], columns):  # of wide tables, the first columns mostly tell all rows apart
        is_copy = pandas.DataFrame(dict(enumerate(some))).duplicated().to_numpy()
        if is_copy.sum() < fewest:
            return None
    rng = np.random.default_rng(seed)
    shuffled = pandas.DataFrame({i: rng.permutation(values) for i, values in enumerate(columns)})
    if is_copy.sum() <= 2 * shuffled.duplicated().sum():
        return None
    return pandas.factorize(pandas.util.hash_pandas_object(frame, index=False))[0], is_copy


def _by_time(time: Array, count: int) -> list[RowSplit]:
    """Cut the rows at count + 1 moments; fold k trains on all parts before part k + 1."""
    borders = np.quantile(np.sort(time), np.linspace(0, 1, count + 2)[1:-1], method="nearest")
    borders = np.unique(borders[borders > time.min()])
    part = np.searchsorted(borders, time, side="right")  # part k: from border k − 1 on
    if len(borders) < 2:
        raise UserError(f"time: expected at least 3 different times spread over the rows, got {len(np.unique(time))}")
    return [RowSplit(np.flatnonzero(part < k), np.flatnonzero(part == k)) for k in range(1, len(borders) + 1)]
