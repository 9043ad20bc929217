"""The problem: a table's rows, the kinds of its columns, the task and the splits, found out before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.cleaning import clean
from automl_ext.tabular.table.columns import (
    FEWEST_OF_CLASS,
    Column,
    find_column,
    find_columns,
    find_leaks,
    is_nested,
    written_numbers,
)
from automl_ext.tabular.table.splits import Kind, RowSplit, find_copies, make_folds, split_kind
from automl_ext.tabular.table.table_files import check_frame
from automl_ext.tabular.table.target import as_target
from automl_ext.tabular.table.task import Array, TableTask, find_task
from automl_ext.training.checks import LARGEST
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

FEWEST_ROWS = 10


@dataclass(frozen=True)
class Problem:
    """A task with its cleaned rows and their split.

    Attributes:
        columns: the columns of the table, without the target.
        frame: the cleaned table, with the rows that have a target and a weight above 0; its index has the numbers of
            these rows in the given table.
        y: class numbers or numbers, [N].
        weight: weight of each row, above 0, mean 1, [N]; None: all are equal.
        kind: kind of split.
        notes: notes on the table, for the user.
    """

    task: TableTask
    columns: list[Column]
    frame: Any
    y: Array
    weight: Array | None
    kind: Kind
    splits: list[RowSplit]
    notes: list[str]


def find_problem(
    frame: Any,
    target: str,
    *,
    time: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    metric: str | None = None,
    task: str | None = None,
    types: Mapping[str, str] | None = None,
    folds: int = 5,
    seed: int = 0,
    source: str = "frame",
) -> Problem:
    """Infer the problem. The arguments are those of :func:`automl_ext.tabular.fit`.

    Raises:
        UserError: an argument or the table is invalid; the message names it.
    """
    # Strings, as the names of all columns.
    target, types = str(target), {str(name): kind for name, kind in (types or {}).items()}
    time, group, weight = (None if name is None else str(name) for name in (time, group, weight))
    for name in types:
        if name in (target, time, group, weight):
            why = f"the target {short(target)}: use --task" if name == target else f"{short(name)}: it is no feature"
            raise UserError(f"type: expected a column that models learn from, got {why}")
    frame, notes = _rows(check_frame(frame, source), target, task, time=time, group=group, weight=weight)
    weights = None
    if weight is not None:
        frame, weights, left_out = _weighted(frame, weight)
        notes += left_out
    found = find_task(frame[target], target, metric, task)
    y = found.encode(frame[target])
    columns = _columns(frame.drop(columns=[target]), types, time=time, group=group, weight=weight)
    cleaned = clean(frame, columns)
    if not len(cleaned.columns):
        raise UserError("the table: expected columns to predict from, got none but constant, id and ignored ones")
    kind = split_kind(found, time, group)
    copies = find_copies(cleaned, y, seed)
    if copies is not None:
        kept = "" if kind in ("time", "group") else ": rows with equal features are in one fold"
        notes.append(f"{int(copies[1].sum()):,} rows are copies of others{kept}")
    distinct = np.flatnonzero(~copies[1]) if copies is not None else np.arange(len(y))
    leaks = find_leaks(cleaned.iloc[distinct], columns, y[distinct], found.is_classification)
    notes += [f"{leak}: if it is not known before the target, ignore it" for leak in leaks]
    notes += written_numbers(frame, columns)
    if found.is_classification and (
        rare := [found.classes[i] for i in np.flatnonzero(np.bincount(y) < FEWEST_OF_CLASS)]
    ):
        notes.append(f"classes with fewer than {FEWEST_OF_CLASS} rows, too few to validate them: {short(rare)}")
    moments, order = _moments(frame[time]) if time is not None else (None, [])
    notes += order
    groups = frame[group].astype(str) if group is not None else None
    splits = make_folds(kind, y, moments, groups, folds, seed, found, copies[0] if copies is not None else None)
    return Problem(found, columns, cleaned, y, weights, kind, splits, notes)


def _rows(frame: Any, target: str, task: str | None, **special: str | None) -> tuple[Any, list[str]]:
    """Return the rows that have a target, with their index, and notes about the others. Converts the target in place.

    ``special`` are the arguments that name a column which is not a feature.
    """
    for argument, name in [("target", target), *special.items()]:
        if name is not None and name not in frame.columns:
            raise UserError(f"{argument}: there is no column {short(name)}; columns: {short(list(frame.columns))}")
        if argument != "target" and name == target:
            raise UserError(f"{argument}: expected another column than the target, got {short(name)}")
    if is_nested(frame[target].dropna()):
        raise UserError(f"target: expected a column of numbers or texts, column {short(target)} has lists or objects")
    if library("pandas").api.types.is_complex_dtype(frame[target].dtype):
        raise UserError(f"target: expected a column of numbers or texts, column {short(target)} has complex numbers")
    frame[target], words = as_target(frame[target], task)
    present = frame[target].notna().to_numpy()
    types = library("pandas").api.types
    if types.is_numeric_dtype(frame[target].dtype):
        sizes = np.abs(frame[target].to_numpy(float, na_value=0.0))
        if sizes.max(initial=0.0) > LARGEST:
            row = int(sizes.argmax())
            raise UserError(
                f"target {target!r}, row {row + 1}: expected a finite number within ±{LARGEST:g}, got one of size "
                f"{sizes[row]:g}"
            )
    notes = [f"target {target!r}: {short(', '.join(words))} counts as missing"] if words else []
    notes += [f"{int((~present).sum())} rows without a target are left out"] if not present.all() else []
    for argument, name in special.items():
        if name is not None and frame.loc[present, name].isna().any():
            raise UserError(f"{argument}: expected a value in each row, column {short(name)} lacks some")
    if present.sum() < FEWEST_ROWS:
        raise UserError(f"the table: expected at least {FEWEST_ROWS} rows with a target, got {int(present.sum())}")
    return frame[present], notes


def _columns(frame: Any, types: Mapping[str, str], **special: str | None) -> list[Column]:
    """Find the kinds of columns. The columns of ``special`` are not features."""
    why = {"time": "it orders the rows", "group": "it groups the rows", "weight": "it weighs the rows"}
    named = {name: why[argument] for argument, name in special.items()}
    return [
        Column(column.name, "ignore", named[column.name]) if column.name in named else column
        for column in find_columns(frame, types)
    ]


def _weighted(frame: Any, weight: str) -> tuple[Any, Array, list[str]]:
    """Return the rows of a weight above 0, their weights with the mean 1, and a note about the others.

    Rows of weight 0 would otherwise count in means of categories, in the scale of the target and in the splits; a fold
    with only such rows could not be trained or measured.
    """
    values = frame[weight]
    column = Column(str(values.name), "numeric", "")
    try:
        found = np.asarray(clean(values.to_frame(), [column])[column.name])
    except UserError as error:
        raise UserError(f"weight: {error}") from None
    if not (found >= 0).all() or not 0 < found.sum() < np.inf:
        row = int((~(found >= 0)).argmax())
        raise UserError(
            f"weight: expected finite numbers of at least 0 and not only zeros, column {column.name!r} has "
            f"{found[row]:g} in row {values.index[row] + 1}"
        )
    is_kept = found > 0
    kept, left_out = int(is_kept.sum()), int((~is_kept).sum())
    if kept < FEWEST_ROWS:
        raise UserError(f"weight: expected at least {FEWEST_ROWS} rows of a weight above 0, got {kept}")
    notes = [f"{left_out} rows of weight 0 are left out"] if left_out else []
    return frame[is_kept], found[is_kept] / found[is_kept].mean(), notes


def _moments(values: Any) -> tuple[Array, list[str]]:
    """Return the times as numbers, and a note on the order of day and month, which decides on the order of the rows."""
    column = find_column(values)
    is_number = column.kind == "numeric" or library("pandas").api.types.is_numeric_dtype(values.dtype)  # also ids
    if column.kind != "date" and not is_number:
        raise UserError(f"time: expected dates or numbers, column {column.name!r} is {column.kind} ({column.why})")
    column = replace(column, kind="date" if column.kind == "date" else "numeric")
    moments = np.asarray(clean(values.to_frame(), [column])[column.name])
    if np.isnan(moments).any():
        raise UserError(f"time: expected a value in each row, column {column.name!r} lacks some")
    return moments, [f"time {column.name!r}: {column.why}"] if column.day_first is not None else []
