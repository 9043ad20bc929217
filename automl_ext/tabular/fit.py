"""Fits a table: types, splits, candidates within a budget, constructed features that help, an ensemble."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from automl_ext.tabular.advice import beaten_by_constant, cut_short, starved
from automl_ext.tabular.ensemble import average, bagged, leaderboard, refitted
from automl_ext.tabular.extra import library
from automl_ext.tabular.features.choice import Verdict
from automl_ext.tabular.fitted import Fitted
from automl_ext.tabular.schedule import run_schedule
from automl_ext.tabular.search import Report, TableSearch
from automl_ext.tabular.table.problem import Problem, find_problem
from automl_ext.tabular.table.task import METRICS
from automl_ext.training.checks import check_seed
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

FOLDS = 5
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
    features: bool = True,
    time: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    metric: str | None = None,
    task: str | None = None,
    types: Mapping[str, str] | None = None,
    workers: int = 1,
    candidates: int | None = None,
    start: Callable[[Problem], None] | None = None,
    report: Report | None = None,
) -> Fitted:
    """Fit an ensemble to a table.

    Candidates are trained on five folds, or on one held-out fold of a large table if there is no time for five: first a
    constant, linear models and small boosting, then the defaults of XGBoost and LightGBM, LightGBM with early stopping,
    other kinds of models, settings that did well on earlier tables, and settings that TPE draws. Families of
    constructed features are kept only if they lower the loss (:mod:`automl_ext.tabular.features.choice`). A greedy
    selection weighs the candidates by their predictions of rows that they were not trained on. The ensemble averages
    the folds' models. After a held-out fold, and for splits by time, the chosen candidates are trained again on all
    rows.

    Args:
        frame: a ``pandas.DataFrame``.
        target: the column to predict; rows without it are left out.
        minutes: wall-clock time for everything this function does.
        seed: seed of all randomness.
        features: whether families of constructed features are tried.
        time: column of dates or numbers, not a feature: models are validated on later rows than they are trained on.
        group: column whose groups are never on both sides of a split. It is not a feature.
        weight: column of numbers, at least 0: the losses of training and of the leaderboard are weighted means, and
            rows of weight 0 are left out. It is not a feature, and new rows need no weights.
        metric: "log_loss" (default), "auc" or "accuracy"; "rmse" (default) or "mae".
        task: "classification" or "regression", in place of the inferred one.
        types: column → "numeric", "categorical", "boolean", "date", "text" or "ignore", in place of the inferred type.
        workers: number of threads.
        candidates: largest number of candidates from XGBoost's defaults on; if ``minutes`` are ample, equal seeds give
            equal results.
        start: is called before any training, with the facts about the table.
        report: is called after each candidate with the number of candidates, its name, its measure and the best measure
            so far.

    Raises:
        UserError: an argument or the table is invalid; the message names it.
        ModuleNotFoundError: a library of the extra ``tabular`` is missing.
    """
    started, used = clock.monotonic(), clock.process_time()
    _check(minutes, seed, workers, candidates, features, task, types)
    for name in ("lightgbm", "xgboost", "sklearn", "optuna"):
        library(name)
    problem = find_problem(
        frame,
        target,
        time=time,
        group=group,
        weight=weight,
        metric=metric,
        task=task,
        types=types,
        folds=FOLDS,
        seed=seed,
    )
    if start is not None:
        start(problem)
    seconds = 60 * minutes
    deadline = started + seconds - max(0.2, 0.03 * seconds)  # the rest is for the selection
    search = TableSearch(problem, deadline, seed, workers)
    by_time = problem.kind == "time"
    verdicts: list[Verdict] = []
    advice: list[str] = []
    interrupted = False
    try:
        run_schedule(search, features, candidates, by_time, report or (lambda *_: None), verdicts, advice)
    except KeyboardInterrupt:
        if not search.trials:
            raise
        interrupted = True
    if all(trial.candidate.learner == "constant" for trial in search.trials):
        raise UserError(f"no model can be trained on the table: {'; '.join(search.failed.values())}")
    advice += cut_short(search)
    votes = search.select()
    again = by_time or len(search.folds) == 1
    parts = refitted(search, votes) if again else bagged(search, votes)
    advice += beaten_by_constant(search, votes)
    cpu, wall = clock.process_time() - used, clock.monotonic() - started
    advice += starved(cpu, wall, seconds)
    facts = {
        "rows": len(problem.y),
        "split": problem.kind,
        "split_means": SPLITS[problem.kind],
        "folds": len(search.folds),
        "refitted": parts.refitted,
        "leaderboard": leaderboard(search, votes),
        "features": [asdict(verdict) for verdict in verdicts],
        "notes": problem.notes,
        "advice": advice,
        "failed": search.failed,
        "interrupted": interrupted,
        "seed": seed,
        "minutes": minutes,
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
    }
    evaluation = {"y": problem.y[search.valid_rows], "predicted": average(search, votes)}
    return Fitted(problem.task, problem.columns, parts.preparations, parts.members, facts, evaluation)


def _check(
    minutes: float, seed: int, workers: int, candidates: int | None, features: bool, task: str | None, types: Any
) -> None:
    """Check the arguments that do not depend on the table."""
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes < math.inf:
        raise UserError(f"minutes: expected a finite number above 0, got {short(minutes)}")
    for name, value in (("workers", workers), ("candidates", candidates)):
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{name}: expected an int of at least 1, got {short(value)}")
    if features not in (True, False):
        raise UserError(f"features: expected True or False, got {short(features)}")
    if task is not None and task not in tuple(METRICS):
        raise UserError(f"task: expected {' or '.join(METRICS)}, got {short(task)}")
    if types is not None and not isinstance(types, Mapping):
        raise UserError(f"types: expected a mapping from columns to types, got {short(types)}")
    try:
        check_seed(seed)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None
