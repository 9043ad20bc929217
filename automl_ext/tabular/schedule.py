"""The order in which candidates are tried within a budget: defaults, features, presets, portfolio, TPE."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping

import numpy as np

from automl_ext.tabular.advice import order_matters
from automl_ext.tabular.candidates import (
    DEFAULTS,
    EARLY_STOPPING,
    LIGHTGBM,
    PRESETS,
    TUNED,
    ModelCandidate,
    Trial,
    Tuner,
    portfolio,
)
from automl_ext.tabular.features.choice import Verdict, judge_families
from automl_ext.tabular.search import Report, TableSearch
from automl_ext.tabular.table.metrics import shown
from automl_ext.training.errors import UserError

JUDGING = 0.3  # largest share of the remaining time in which families of features are judged
ROOM = 20  # candidates that must fit into the remaining time; with fewer, settings gain more than features
SPARE = 1.4  # how much longer than estimated the final trainings may take
AFFORDABLE = 0.25  # largest share of the time left that a candidate may take: forests and many rounds are slow
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
        limit: largest number of candidates; None: no limit.
        refits: the selected candidates are trained again on all rows, for which time must remain.
        report: is called after each trial.
        verdicts: gets what was decided about the families of features.
        advice: gets sentences for the user (:mod:`automl_ext.tabular.advice`).
    """
    untried = iter(DEFAULTS)
    if not any(search.plan(candidate, EARLY_STOPPING) for candidate in untried):
        raise UserError(f"no model can be trained on the table: {'; '.join(search.failed.values())}")
    _tell(search, report)
    refits = refits or len(search.folds) == 1
    first = search.trials[0]
    if search.kind in ("stratified", "random") and ROOM * first.seconds / len(search.folds) < search.remaining():
        advice += order_matters(search, first)
    if limit is None or limit > 1:
        for candidate in untried:
            _try(search, candidate, refits, report)
        if features:
            trial = next((t for t in search.trials if t.candidate.name == LIGHTGBM), None)
            seconds = math.inf if trial is None else trial.seconds
            judging = JUDGING * search.remaining() if ROOM * seconds < search.remaining() else 0
            verdicts += judge_families(search, trial, time.monotonic() + judging)
        search.families = tuple(verdict.family for verdict in verdicts if verdict.kept)
    # Equal numbers of trials of both learners do not depend on the time, which a number of candidates promises.
    cost = search.spent if limit is None else search.tried
    for candidate in itertools.chain([EARLY_STOPPING], PRESETS, _in_turn(cost, portfolio())):
        if limit is not None and len(search.trials) + len(search.failed) >= limit:
            return
        if _expected(search, candidate.learner) < AFFORDABLE * _time_left(search, refits):
            bar = search.bar() if candidate.learner in TUNED else math.inf  # other kinds of models help an ensemble
            _try(search, candidate, refits, report, bar)
    _tune(search, limit, refits, report, cost)


def _in_turn(cost: Mapping[str, float], untried: dict[str, list[ModelCandidate]]) -> Iterator[ModelCandidate]:
    """Yield the candidates, the next one always of the learner with the least ``cost`` so far."""
    while any(untried.values()):
        learner = min((name for name, left in untried.items() if left), key=cost.__getitem__)
        yield untried[learner].pop(0)


def _tune(search: TableSearch, limit: int | None, refits: bool, report: Report, cost: Mapping[str, float]) -> None:
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
        if limit is not None and len(search.trials) + len(search.failed) >= limit:
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
