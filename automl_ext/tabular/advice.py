"""Advice on a leaderboard: whether its best model beats the constant, and whether later rows are predicted as well."""

from __future__ import annotations

import numpy as np

from automl_ext.tabular.candidates import BASELINES, Fold, Trial
from automl_ext.tabular.ensemble import average, standard_error
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.metrics import shown
from automl_ext.tabular.table.task import Array

PARTS = 5  # of the only validation part, in place of folds
ERRORS = 2.0  # standard errors by which the ensemble must beat the constant
LEAST = 1e-3  # share of the constant's loss that the gain must be
STARVED = 0.5  # share of the wall-clock time below which the CPU time is too little
USED_UP = 0.8  # of the budget, below which the search ended by itself
LATEST = 0.2  # share of the rows that are the latest
WORSE = 1.25  # how much larger the loss on later rows must be, and
DEVIATIONS = 4.0  # by how many of standard deviations of a fold's loss, to advise a split by time
DATES = 2  # columns of dates that are tried


def cut_short(search: TableSearch) -> list[str]:
    """Return a sentence if there was no time to finish the training of any model other than linear ones."""
    others = [trial for trial in search.trials if trial.candidate.learner not in BASELINES]
    if not others and not search.failed:
        return ["there was no time for other models than linear ones: take more minutes"]
    if not others or not all(model.was_cut for trial in others for model in trial.models):
        return []
    cut = ", ".join(f"{trial.candidate.name} in round {trial.rounds}" for trial in others)
    return [f"the time ended the training of every model but linear ones, {cut}: take more minutes"]


def starved(cpu: float, wall: float, budget: float) -> list[str]:
    """Return a sentence if the budget was used up and the process got far less CPU time. All arguments in seconds."""
    if cpu >= STARVED * wall or wall < USED_UP * budget:
        return []
    return [
        f"fit had {cpu:.3g} CPU-seconds in {wall:.3g} seconds, because the machine is busy with other work: take more "
        "minutes, or wait until it is idle"
    ]


def beaten_by_constant(search: TableSearch, votes: list[int]) -> list[str]:
    """Return a sentence if the ensemble does not beat the constant by ``ERRORS`` standard errors of the gain.

    The folds' training rows overlap, so the error is corrected as by Nadeau and Bengio (2003).
    """
    predicted, rows = average(search, votes), search.valid_rows
    constant = next(trial for trial in search.trials if trial.candidate.learner == "constant")

    def gain(part: Array) -> float:
        return search.loss(rows[part], constant.predicted[part]) - search.loss(rows[part], predicted[part])

    overlap = len(rows) / float(np.mean([len(fold.train) for fold in search.folds]))
    error = max(ERRORS * np.sqrt(1 + overlap) * standard_error(search, gain), LEAST * constant.loss)
    if gain(np.arange(len(rows))) > error:
        return []
    metric, value = search.task.metric, search.loss(rows, predicted)
    return [
        f"nothing beats the constant: the ensemble's {metric.replace('_', ' ')} is {shown(metric, value):.4g}, that of "
        f"{_constant_name(search)} {shown(metric, constant.loss):.4g}; only a gain above {error:.2g} is no accident"
    ]


def _parts(search: TableSearch) -> list[Array]:
    """Return the positions of each fold's validation rows; with one fold, random parts of its validation rows."""
    ends = np.cumsum([len(fold.valid) for fold in search.folds])
    if len(ends) > 1:
        return np.split(np.arange(ends[-1]), ends[:-1])
    return np.array_split(np.random.default_rng(search.seed).permutation(ends[-1]), PARTS)


def _constant_name(search: TableSearch) -> str:
    if search.task.is_classification:
        return "the class frequencies"
    return "the median" if search.task.metric == "mae" else "the mean"


def order_matters(search: TableSearch, first: Trial) -> list[str]:
    """Return a sentence if a model of the earlier rows has a far higher loss on the latest rows than on random folds.

    Args:
        search: has the rows; its split is at random.
        first: the trial whose settings are trained again, once for each of the first ``DATES`` columns of dates.
    """
    rows, found = search.valid_rows, []
    spread = float(np.std([search.loss(rows[part], first.predicted[part]) for part in _parts(search)], ddof=1))
    if len(search.folds) == 1:
        spread *= np.sqrt(2 / PARTS)  # of the difference between the losses of two such parts
    for name in [column.name for column in search.columns if column.kind == "date"][:DATES]:
        when = search.frame[name].to_numpy(dtype=float)
        border = np.nanquantile(when, 1 - LATEST)
        fold = Fold(np.flatnonzero(when <= border), np.flatnonzero(when > border))
        value = search.loss_on(fold, first.candidate) if len(fold.valid) > LATEST / 2 * len(when) else None
        if value is None:
            continue
        if value > max(WORSE * first.loss, first.loss + DEVIATIONS * spread):
            metric = search.task.metric
            found.append(
                f"column {name!r}: trained on the earlier rows, {first.candidate.name} has the "
                f"{metric.replace('_', ' ')} {shown(metric, value):.4g} on the latest {LATEST:.0%}, and "
                f"{shown(metric, first.loss):.4g} on random rows; if new rows are later than these, use --time {name}"
            )
    return found
