"""The order in which candidates are tried within a budget: defaults, features, presets, portfolio, TPE."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping

import numpy as np

from automl_ext.tabular.advice import order_matters
from automl_ext.tabular.candidates import (
    CONSTANT,
    DEFAULTS,
    EARLY_STOPPING,
    PRESETS,
    SMALL,
    TUNED,
    ModelCandidate,
    Trial,
    Tuner,
    linear,
    portfolio,
)
from automl_ext.tabular.features.choice import Verdict, judge_families
from automl_ext.tabular.search import Report, TableSearch
from automl_ext.tabular.table.metrics import shown

JUDGING = 0.3  # largest share of the remaining time in which families of features are judged
ROOM = 20  # candidates that must fit into the remaining time; with fewer, settings gain more than features
SPARE = 1.4  # how much longer than estimated the final trainings may take
AFFORDABLE = 0.25  # largest share of the time left that a candidate may take: forests and many rounds are slow
CHEAP = 0.1  # largest share of the time left that a linear model takes, if another one follows
STALE = 40  # end after this number of TPE's trials in a row without a new best one


def run_schedule(
    search: TableSearch,
    features: bool,
    limit: int | None,
    refits: bool,
    report: Report,
    verdicts: list[Verdict],
    advice: list[str],
) -> None:
    """Try candidates until the time or the number of candidates is used up.

    Args:
        search: records the trials.
        features: whether families of features are judged, and used if they are worth it.
        limit: largest number of candidates from the defaults on; None: no limit.
        refits: the selected candidates are trained again on all rows, for which time must remain.
        report: is called after each trial.
        verdicts: receives the decisions on the families of features.
        advice: receives sentences for the user (:mod:`automl_ext.tabular.advice`).
    """
    search.plan(DEFAULTS[0], EARLY_STOPPING)
    refits = refits or len(search.folds) == 1
    _baselines(search, report)
    _try(search, SMALL, refits, report)
    most = math.inf if limit is None else limit + _count(search)
    first, other = (
        _try(search, candidate, refits, report) if _count(search) < most else None for candidate in DEFAULTS
    )
    is_random = search.kind in ("stratified", "random")
    if first and is_random and ROOM * first.seconds / len(search.folds) < search.remaining():
        advice += order_matters(search, first)
    if features and other:
        judging = JUDGING * search.remaining() if ROOM * other.seconds < search.remaining() else 0
        verdicts += judge_families(search, other, time.monotonic() + judging)
    search.families = tuple(verdict.family for verdict in verdicts if verdict.kept)
    # Equal numbers of trials of both learners do not depend on the time, which a number of candidates promises.
    cost = search.spent if limit is None else search.tried
    presets = [candidate for candidate in PRESETS if search.families or candidate.learner != "linear"]
    for candidate in itertools.chain([EARLY_STOPPING], presets, _in_turn(cost, portfolio())):
        if _count(search) >= most:
            return
        if _expected(search, candidate.learner) < AFFORDABLE * _time_left(search, refits):
            bar = search.bar() if candidate.learner in TUNED else math.inf  # other kinds of models help an ensemble
            _try(search, candidate, refits, report, bar)
    _tune(search, most, refits, report, cost)


def _baselines(search: TableSearch, report: Report) -> None:
    """Train the constant and linear models: with two penalties, and then one beyond the better of the two.

    There are fewer linear models if one takes too long.
    """
    search.run(CONSTANT, math.inf)
    penalties = [100.0, 1.0]
    for penalty in penalties:
        left = max(0.0, search.remaining())
        trial = search.run(linear(penalty), time.monotonic() + AFFORDABLE * left)
        if trial is not None:
            _tell(search, report)
        if trial is None or trial.seconds > CHEAP * left:
            return
        if penalty == 1.0:
            penalties.append(0.01 if trial.loss < search.trials[-2].loss else 10_000.0)


def _count(search: TableSearch) -> int:
    """Return the number of candidates that were trained or failed."""
    return len(search.trials) + len(search.failed)


def _in_turn(cost: Mapping[str, float], untried: dict[str, list[ModelCandidate]]) -> Iterator[ModelCandidate]:
    """Yield the candidates; the next one is always a candidate of the learner with the least ``cost`` so far."""
    while any(untried.values()):
        learner = min((name for name, left in untried.items() if left), key=cost.__getitem__)
        yield untried[learner].pop(0)


def _tune(search: TableSearch, most: float, refits: bool, report: Report, cost: Mapping[str, float]) -> None:
    """Let TPE draw settings of the learner with the least cost; a draw that is bad on the first fold is given up."""
    tuners = [Tuner(learner, search.seed) for learner in TUNED]
    for trial in search.trials:
        for tuner in tuners:
            if tuner.learner == trial.candidate.learner:
                tuner.add(trial)
    stale, best = 0, search.best().loss
    while True:
        left = _time_left(search, refits)
        if stale >= STALE or left <= min(_expected(search, t.learner) for t in tuners):
            return
        if _count(search) >= most:
            return
        tuner = min(tuners, key=lambda tuner: cost[tuner.learner])
        asked, candidate = tuner.ask()
        found = _try(search, candidate, refits, report, bar=search.bar())
        tuner.tell(asked, found.loss if found is not None else None, search.rejected.get(candidate.name))
        stale = 0 if found is not None and found.loss < best else stale + 1
        best = search.best().loss


def _try(
    search: TableSearch, candidate: ModelCandidate, refits: bool, report: Report, bar: float | None = None
) -> Trial | None:
    left = _time_left(search, refits)
    if left <= 0:
        return None
    trial = search.run(candidate, time.monotonic() + (left if bar is None else AFFORDABLE * left), bar)
    if trial is not None:
        _tell(search, report)
    return trial


def _tell(search: TableSearch, report: Report) -> None:
    metric, trial = search.task.metric, search.trials[-1]
    report(len(search.trials), trial.candidate.name, shown(metric, trial.loss), shown(metric, search.best().loss))


def _time_left(search: TableSearch, refits: bool) -> float:
    """Return the seconds left for candidates, less those for the final trainings."""
    if not refits:
        return search.remaining()
    growth = len(search.y) / float(np.mean([len(fold.train) for fold in search.folds]))  # of the training rows
    chosen = [trial for trial, votes in zip(search.trials, search.select(), strict=True) if votes]
    return search.remaining() - SPARE * growth * sum(trial.seconds / len(search.folds) for trial in chosen)


def _expected(search: TableSearch, learner: str) -> float:
    """Return the median time of the learner's trials; 0 if there is none."""
    seconds = [trial.seconds for trial in search.trials if trial.candidate.learner == learner]
    return float(np.median(seconds)) if seconds else 0.0
