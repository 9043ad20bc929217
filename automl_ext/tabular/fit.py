"""Fits a table: types, splits, candidates within a budget, features that earn their place, an ensemble."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping
from typing import Any

import numpy as np

from automl_ext.tabular.cleaning import clean
from automl_ext.tabular.columns import Column, check_duplicates, find_column, find_columns
from automl_ext.tabular.ensemble import average, bagged, leaderboard, refitted
from automl_ext.tabular.extra import library
from automl_ext.tabular.fitted import Fitted
from automl_ext.tabular.reading import check_frame
from automl_ext.tabular.schedule import run_schedule
from automl_ext.tabular.search import Report, Search
from automl_ext.tabular.splits import folds, split_kind
from automl_ext.tabular.task import Array, find_task
from automl_ext.training.checks import check_seed
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

FOLDS = 5
FEWEST_ROWS = 10
SPLITS = {
    "stratified": "each fold has the classes' shares",
    "random": "rows are drawn at random",
    "time": "models are validated on later rows than they are trained on",
    "group": "all rows of a group are on the same side",
}


def fit(
    frame: Any,
    target: str,
    *,
    minutes: float = 1.0,
    seed: int = 0,
    features: bool | str = "auto",
    time: str | None = None,
    group: str | None = None,
    metric: str | None = None,
    task: str | None = None,
    types: Mapping[str, str] | None = None,
    workers: int = 1,
    candidates: int | None = None,
    report: Report | None = None,
) -> Fitted:
    """Fit an ensemble to a table.

    Candidates are trained on five folds, or on one held-out fold where there is no time for five: first the defaults
    of XGBoost and LightGBM, then other kinds of models, then settings that did well on earlier tables, then settings
    that TPE draws. Families of constructed features are kept only if they lower the loss
    (:mod:`automl_ext.tabular.features.choice`). A greedy selection weighs the candidates by their predictions of rows
    that they were not trained on. The ensemble averages the folds' models. After a held-out fold, and for splits by
    time, the chosen candidates are trained again on all rows.

    Args:
        frame: a ``pandas.DataFrame``.
        target: the column to predict; rows without it are left out.
        minutes: wall-clock time for everything this function does.
        seed: of all randomness.
        features: whether families of features are tried; "auto" is True.
        time: column of dates or numbers: models are validated on later rows than they are trained on. It is no feature.
        group: column whose groups are never on both sides of a split. It is no feature.
        metric: "log_loss" (default), "auc" or "accuracy"; "rmse" (default) or "mae".
        task: "classification" or "regression", in place of the inferred one.
        types: column → "numeric", "categorical", "boolean", "date", "text" or "ignore", in place of the inferred type.
        workers: number of threads.
        candidates: largest number of candidates; if ``minutes`` are ample, equal seeds then give equal results.
        report: is called after each candidate with their number, its name, its measure and the best one so far.

    Raises:
        UserError: an argument or the table is invalid; the message names it.
        ModuleNotFoundError: a library of the extra ``tabular`` is missing.
    """
    started = clock.monotonic()
    _check(minutes, seed, workers, candidates, features)
    for name in ("lightgbm", "xgboost", "sklearn", "optuna"):
        library(name)
    frame, notes = _rows(check_frame(frame, "frame"), target, time, group)
    found = find_task(frame[target], target, metric, task)
    y = found.encode(frame[target])
    columns = _columns(frame.drop(columns=[target]), types or {}, time, group)
    cleaned = clean(frame, columns)
    if not len(cleaned.columns):
        raise UserError("the table: expected columns to predict from, got none but constant, id and ignored ones")
    notes += [
        f"column {name!r} predicts the target perfectly: if it is not known before the target, ignore it"
        for name in check_duplicates(cleaned, columns, y, found.is_classification)
    ]
    kind = split_kind(found, time, group)
    moments = _moments(frame[time]) if time is not None else None
    groups = frame[group].astype(str) if group is not None else None
    splits = folds(kind, y, moments, groups, FOLDS, seed, found)
    seconds = 60 * minutes
    deadline = started + seconds - max(0.2, 0.03 * seconds)  # the rest is for the selection
    search = Search(found, cleaned, columns, y, splits, deadline, seed, workers)
    verdicts = run_schedule(search, bool(features), candidates, kind == "time", report or (lambda *_: None))
    votes = search.select()
    again = kind == "time" or len(search.folds) == 1
    preparations, members = refitted(search, votes) if again else bagged(search, votes)
    facts = {
        "rows": len(y),
        "split": kind,
        "split_means": SPLITS[kind],
        "folds": len(search.folds),
        "refitted": again,
        "leaderboard": leaderboard(search, votes),
        "features": [verdict.to_json() for verdict in verdicts],
        "notes": notes,
        "failed": search.failed,
        "seed": seed,
        "minutes": minutes,
        "seconds": round(clock.monotonic() - started, 2),
    }
    evaluation = {"y": y[search.valid_rows], "predicted": average(search, votes)}
    return Fitted(found, columns, preparations, members, facts, evaluation)


def _check(minutes: float, seed: int, workers: int, candidates: int | None, features: bool | str) -> None:
    """Check the arguments that do not depend on the table."""
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes < math.inf:
        raise UserError(f"minutes: expected a finite number above 0, got {short(minutes)}")
    for name, value in (("workers", workers), ("candidates", candidates)):
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{name}: expected an int of at least 1, got {short(value)}")
    if features not in (True, False, "auto"):
        raise UserError(f"features: expected True, False or 'auto', got {short(features)}")
    try:
        check_seed(seed)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None


def _rows(frame: Any, target: str, time: str | None, group: str | None) -> tuple[Any, list[str]]:
    """Return the rows that have a target, and notes about the others."""
    for argument, name in (("target", target), ("time", time), ("group", group)):
        if name is not None and name not in frame.columns:
            raise UserError(f"{argument}: there is no column {short(name)}; columns: {short(list(frame.columns))}")
        if argument != "target" and name == target:
            raise UserError(f"{argument}: expected another column than the target, got {short(name)}")
    present = frame[target].notna().to_numpy()
    types = library("pandas").api.types
    if types.is_numeric_dtype(frame[target].dtype) and np.isinf(frame[target].to_numpy(float, na_value=0.0)).any():
        raise UserError(f"target {target!r}: expected finite numbers, got an infinite one")
    notes = [f"{int((~present).sum())} rows without a target are left out"] if not present.all() else []
    for argument, name in (("time", time), ("group", group)):
        if name is not None and frame.loc[present, name].isna().any():
            raise UserError(f"{argument}: expected a value in each row, column {short(name)} lacks some")
    if present.sum() < FEWEST_ROWS:
        raise UserError(f"the table: expected at least {FEWEST_ROWS} rows with a target, got {int(present.sum())}")
    return frame[present].reset_index(drop=True), notes


def _columns(frame: Any, types: Mapping[str, str], time: str | None, group: str | None) -> list[Column]:
    """Find the kinds of columns. The time and the group are no features."""
    special = {time: "it orders the rows", group: "it groups the rows"}
    special.pop(None, None)
    return [
        Column(column.name, "ignore", special[column.name]) if column.name in special else column
        for column in find_columns(frame, types)
    ]


def _moments(values: Any) -> Array:
    """Return the times as numbers."""
    column = find_column(values)
    if column.kind not in ("date", "numeric", "id"):
        raise UserError(f"time: expected dates or numbers, column {column.name!r} is {column.kind} ({column.why})")
    column = Column(column.name, "date" if column.kind == "date" else "numeric", "", column.missing)
    moments = np.asarray(clean(values.to_frame(), [column])[column.name])
    if np.isnan(moments).any():
        raise UserError(f"time: expected a value in each row, column {column.name!r} lacks some")
    return moments
