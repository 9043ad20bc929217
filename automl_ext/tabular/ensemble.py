"""The final ensemble: the folds' models, or models trained again on all rows; and its leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from automl_ext.tabular.candidates import Fold, Trial
from automl_ext.tabular.features.preparation import Preparation
from automl_ext.tabular.fitted import Member
from automl_ext.tabular.learners.job import Model
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.metrics import shown
from automl_ext.tabular.table.task import Array

PARTS = 20  # of the validation rows, for a standard error


class Parts(NamedTuple):
    """The parts of a fitted ensemble.

    Attributes:
        preparations: the fitted preparations of the columns.
        members: the models.
        refitted: number of members that were trained again on all rows; None: the members are the folds' models.
    """

    preparations: list[Preparation]
    members: list[Member]
    refitted: int | None = None


def bagged(search: TableSearch, votes: list[int]) -> Parts:
    """Return the models of all folds; each row was used to train all of them but one."""
    return _parts(
        (search.matrices(fold, trial.candidate.basic)[0], trial, share / len(trial.models), model)
        for trial, share in _chosen(search, votes)
        for fold, model in zip(search.folds, trial.models, strict=True)
    )


def refitted(search: TableSearch, votes: list[int]) -> Parts:
    """Train the chosen trials again on all rows, the one with most votes first.

    If this training fails or no time is left for it, the model of the trial's last fold is used.
    """
    everything = Fold(np.arange(len(search.y)), np.arange(0))
    found = []
    count = 0
    for trial, share in _chosen(search, votes):
        model = search.refit(trial, everything, search.deadline) if search.remaining() > 0 else None
        count += model is not None
        fold = everything if model is not None else search.folds[-1]
        found.append((search.matrices(fold, trial.candidate.basic)[0], trial, share, model or trial.models[-1]))
    return _parts(found)._replace(refitted=count)


def _parts(found: Iterable[tuple[Preparation, Trial, float, Model]]) -> Parts:
    """Return the parts of an ensemble. Members with the same preparation share it."""
    preparations: dict[int, Preparation] = {}
    members = []
    for preparation, trial, weight, model in found:
        preparations[id(preparation)] = preparation
        position = list(preparations).index(id(preparation))
        members.append(Member(trial.candidate.learner, weight, trial.rounds, position, model))
    return Parts(list(preparations.values()), members)


def _chosen(search: TableSearch, votes: list[int]) -> list[tuple[Trial, float]]:
    """Return the trials with votes and their shares, the largest first."""
    total = sum(votes)
    chosen = [(trial, n / total) for trial, n in zip(search.trials, votes, strict=True) if n]
    return sorted(chosen, key=lambda pair: -pair[1])


def average(search: TableSearch, votes: list[int]) -> Array:
    """Return the ensemble's predictions of the validation rows."""
    return np.asarray(sum(share * trial.predicted for trial, share in _chosen(search, votes)))


def standard_error(search: TableSearch, value: Callable[[Array], float]) -> float:
    """Estimate the standard error of a value by leaving out one part of the validation rows at a time (jackknife).

    The parts are ``PARTS`` random ones, or the folds if the rows are not independent: in splits by time and by group.

    Args:
        value: computes the value from positions of validation rows.
    """
    sizes = [len(fold.valid) for fold in search.folds]
    part = np.repeat(np.arange(len(sizes)), sizes)
    if len(sizes) == 1 or search.kind not in ("time", "group"):
        part = np.random.default_rng(search.seed).permutation(len(part)) % PARTS
    values = [value(np.flatnonzero(part != k)) for k in np.unique(part)]
    return float(np.sqrt((len(values) - 1) * np.var(values)))


def leaderboard(search: TableSearch, votes: list[int]) -> list[dict[str, Any]]:
    """Return one row per trial, the best first; the ensemble is the first row, with the standard error of its value.

    The losses are those of rows that the models were not trained on. The ensemble was selected by these rows, so its
    measure is slightly too good.
    """
    metric = search.task.metric
    predicted, valid = average(search, votes), search.valid_rows
    ensemble = search.loss(valid, predicted)
    error = standard_error(search, lambda part: search.loss(valid[part], predicted[part]))
    rows = [{"name": "ensemble", metric: shown(metric, ensemble), "error": error, "std": None, "votes": sum(votes)}]
    rows[0] |= {"rounds": None, "features": None, "seconds": None}
    for trial, n in sorted(zip(search.trials, votes, strict=True), key=lambda row: row[0].loss):
        rows.append(
            {
                "name": trial.candidate.name,
                metric: shown(metric, trial.loss),
                "error": None,
                "std": float(np.std(trial.losses, ddof=1)) if len(trial.losses) > 1 else None,
                "votes": n,
                "rounds": trial.rounds if trial.models[0].rounds else None,
                "features": bool(search.families) and not trial.candidate.basic,
                "seconds": round(trial.seconds, 2),
            }
        )
    return rows
