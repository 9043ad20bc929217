"""The search: trains candidates on every fold within a budget, and selects an ensemble of them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from automl_ext.tabular.candidates import BASELINES, Fold, ModelCandidate, Trial
from automl_ext.tabular.features.preparation import prepare
from automl_ext.tabular.learners.job import FitJob, Model
from automl_ext.tabular.learners.registry import LEARNERS, failures
from automl_ext.tabular.table.columns import Column
from automl_ext.tabular.table.metrics import TINY, likelihood, loss
from automl_ext.tabular.table.problem import Problem
from automl_ext.tabular.table.task import Array
from automl_ext.training.ensembles.selection import select_members
from automl_ext.training.files.reading import short

VOTES = 30  # rounds of the greedy selection
SELECTION_ROWS = 10_000  # most rows, drawn at random, of a selection by AUC or accuracy: 10 members take 0.3 seconds
WORTH = 150  # cross-validation needs time for this number of trainings like the first; else one fold is held out
ROOM = 60  # the same for trainings with early stopping
ENOUGH = 1000  # rows of a held-out part that suffice to choose among models
PROBE = 0.25  # largest share of the time for the first training with early stopping
BEST = 3  # candidates worse than this number of trials on the first fold are not trained on the others
IMPORTANCE_ROUNDS = 30  # of the model that orders columns by importance

Report = Callable[[int, str, float, float], None]  # trials so far, name, its measure, the best one


class TableSearch:
    """State of a search: the candidates tried so far.

    Attributes:
        folds: the splits; only one is used if there is no time for all.
        trials: the candidates that were trained on every used fold.
        failed: name → why a candidate has no result.
        spent, tried: learner → seconds and number of its candidates, including those that were given up or failed.
        rejected: name → the loss on the first fold, of the candidates that were given up because of it.
        families: the families of constructed features that are used.
    """

    def __init__(self, problem: Problem, deadline: float, seed: int, threads: int) -> None:
        self.task, self.frame, self.y, self.kind = problem.task, problem.frame, problem.y, problem.kind
        self.weight = problem.weight
        self.columns = [column for column in problem.columns if column.is_used]
        self.folds = [Fold(split.train, split.valid) for split in problem.splits]
        self.deadline, self.seed, self.threads = deadline, seed, threads
        self.trials: list[Trial] = []
        self.failed: dict[str, str] = {}
        self.spent: dict[str, float] = defaultdict(float)
        self.tried: dict[str, int] = defaultdict(int)
        self.rejected: dict[str, float] = {}
        self._selected: tuple[int, list[int]] = (0, [])  # number of trials, the votes among them
        self.families: tuple[str, ...] = ()

    @property
    def valid_rows(self) -> Array:
        """The row numbers of the predictions in :attr:`trials`."""
        return np.concatenate([fold.valid for fold in self.folds])

    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    def matrices(self, fold: Fold, basic: bool) -> tuple[Any, Any, Any]:
        """Return the preparation of a fold and its matrices; each is computed once."""
        constructed = bool(self.families) and not basic
        if constructed not in fold.sets:
            fold.sets[constructed] = self.prepared(fold, self.families if constructed else ())
        return fold.sets[constructed]

    def prepared(self, fold: Fold, families: Sequence[str]) -> tuple[Any, Any, Any]:
        """Learn a preparation from the fold's training rows, and apply it to both parts."""
        columns = self.by_importance(fold) if families else self.columns
        train = self.frame.iloc[fold.train]
        y = self.task.scaled(self.y[fold.train])
        preparation, matrix = prepare(train, columns, y, self.task, families, self.seed)
        return preparation, matrix, preparation.apply(self.frame.iloc[fold.valid])

    def by_importance(self, fold: Fold) -> list[Column]:
        """Order the columns by their importance in a small model of the fold's training rows, once."""
        if fold.order is not None:
            return fold.order
        _, train, _ = self.matrices(fold, basic=True)
        settings = LEARNERS["lightgbm"].settings(rounds=IMPORTANCE_ROUNDS, patience=0)
        model = LEARNERS["lightgbm"].train(settings, self.job(fold, train, None))
        gain = dict(zip(train.names, model.importance(IMPORTANCE_ROUNDS), strict=True))
        fold.order = sorted(self.columns, key=lambda column: -gain.get(column.name, 0.0))
        return fold.order

    def job(self, fold: Fold, train: Any, valid: Any, deadline: float | None = None) -> FitJob:
        deadline = self.deadline if deadline is None else deadline
        y = self.task.scaled(self.y[fold.train])
        valid_y = None if valid is None else self.task.scaled(self.y[fold.valid])
        weight, valid_weight = (None if self.weight is None else self.weight[rows] for rows in (fold.train, fold.valid))
        seed = (self.seed + len(self.trials)) % 2**32  # scikit-learn takes no larger seeds
        return FitJob(self.task, train, y, valid, valid_y, weight, valid_weight, seed, self.threads, deadline)

    def plan(self, first: ModelCandidate, boosted: ModelCandidate) -> None:
        """Keep the folds, or only one if the table is large and there is no time for cross-validation.

        A small table always keeps all folds: one fold has too few rows to choose among models. For a large table, there
        is time for cross-validation if ``WORTH`` trainings of the first candidate fit into the time left, and ``ROOM``
        trainings of ``boosted``, whose number of rounds depends on the table, so that it may take several times as
        long. The models of both are kept for :meth:`run`. In splits by time, the kept fold is the last one, which has
        the most training rows.
        """
        chosen = self.folds[-1] if self.kind == "time" else self.folds[0]
        if len(chosen.valid) < ENOUGH:
            return
        for candidate, count, share in ((first, WORTH, 1.0), (boosted, ROOM, PROBE)):
            if not self._has_room(candidate, chosen, count, share):
                self.folds = [chosen]
                return

    def _has_room(self, candidate: ModelCandidate, fold: Fold, count: int, share: float) -> bool:
        """Train the candidate on the fold in a share of the time. Return whether ``count`` such trainings have time."""
        started = time.monotonic()
        try:
            model = self._train(candidate, fold, started + share * self.remaining())
        except failures():
            return True
        seconds = time.monotonic() - started
        fold.begun[candidate.name] = model, seconds
        return not model.was_cut and self.remaining() >= count * seconds

    def run(
        self,
        candidate: ModelCandidate,
        deadline: float,
        bar: float | None = None,
        after_fold: Callable[[float], None] | None = None,
    ) -> Trial | None:
        """Train a candidate on every fold.

        Args:
            deadline: time at which to give up; the first of several folds may only take its share of the time.
            bar: with several folds, give up if the loss on the first fold is above this.
            after_fold: is called after each fold, with the loss of the validation rows so far.

        Returns:
            The trial; None if it was given up or failed.
        """
        started = time.monotonic()
        models: list[Model] = []
        predicted: list[Array] = []
        try:
            first_deadline = started + (deadline - started) / len(self.folds)
            for k, fold in enumerate(self.folds):
                if candidate.name in fold.begun:
                    model, seconds = fold.begun.pop(candidate.name)
                    started -= seconds
                else:
                    model = self._train(candidate, fold, deadline if k else first_deadline)
                is_late = k + 1 < len(self.folds) and time.monotonic() > deadline and candidate.learner not in BASELINES
                if is_late or (model.was_cut and len(self.folds) > 1):
                    return None
                models.append(model)
                if after_fold is not None or (k == 0 and bar is not None and len(self.folds) > 1):
                    predicted.append(model.predict(self.matrices(fold, candidate.basic)[2].x, model.rounds))
                    rows = np.concatenate([f.valid for f in self.folds[: k + 1]])
                    value = self.loss(rows, np.concatenate(predicted))
                    if after_fold is not None:
                        after_fold(value)
                    elif bar is not None and value > bar:
                        self.rejected[candidate.name] = value
                        return None
            return self._record(candidate, models, started)
        except failures() as error:  # one library's failure on unusual data must not end the search
            self.failed[candidate.name] = f"{type(error).__name__}: {short(error)}"
            return None
        finally:
            self.tried[candidate.learner] += 1
            self.spent[candidate.learner] += time.monotonic() - started

    def _train(self, candidate: ModelCandidate, fold: Fold, deadline: float) -> Model:
        _, train, valid = self.matrices(fold, candidate.basic)
        model: Model = LEARNERS[candidate.learner].train(candidate.settings, self.job(fold, train, valid, deadline))
        return model

    def loss_on(self, fold: Fold, candidate: ModelCandidate) -> float | None:
        """Train a candidate on another split. Return its loss; None if it failed or there was no time."""
        try:
            model = self._train(candidate, fold, self.deadline)
        except failures():
            return None
        predicted = model.predict(self.matrices(fold, candidate.basic)[2].x, model.rounds)
        return None if model.was_cut else self.loss(fold.valid, predicted)

    def _record(self, candidate: ModelCandidate, models: list[Model], started: float) -> Trial:
        rounds = max(1, round(float(np.mean([model.rounds for model in models]))))
        predicted = []
        losses = []
        for fold, model in zip(self.folds, models, strict=True):
            predicted.append(model.predict(self.matrices(fold, candidate.basic)[2].x, rounds))
            losses.append(self.loss(fold.valid, predicted[-1]))
        if not all(np.isfinite(part).all() for part in predicted):
            raise ValueError("a prediction is not finite")
        together = np.concatenate(predicted)
        value = self.loss(self.valid_rows, together)
        seconds = time.monotonic() - started
        trial = Trial(candidate, models, rounds, together, value, losses, seconds, len(self.trials) + 1)
        self.trials.append(trial)
        return trial

    def loss(self, rows: Array, predicted: Array) -> float:
        """Return the loss of predictions of these rows of the table."""
        return loss(self.task, self.y[rows], predicted, weight=None if self.weight is None else self.weight[rows])

    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: trial.loss)

    def bar(self) -> float:
        """Return the loss on the first fold that a candidate needs: that of the ``BEST``-th best trial."""
        losses = sorted(trial.losses[0] for trial in self.trials)
        return losses[BEST - 1] if len(losses) >= BEST else math.inf

    def select(self) -> list[int]:
        """Select the ensemble. Return the number of votes of each trial."""
        if self._selected[0] != len(self.trials):
            self._selected = len(self.trials), self._select()
        return self._selected[1]

    def _select(self) -> list[int]:
        rows = self.valid_rows
        if self.task.metric == "log_loss":
            y = self.y[rows]
            weight = np.ones(len(y)) if self.weight is None else self.weight[rows]
            share = torch.from_numpy(weight / weight.sum())
            likelihoods = np.stack([likelihood(y, trial.predicted) for trial in self.trials])
            return select_members(torch.from_numpy(likelihoods), lambda p: -p.clamp_min(TINY).log() @ share, VOTES)
        some = np.arange(len(rows))
        if self.task.is_classification:  # accuracy, and AUC, which sorts the rows
            some = np.random.default_rng(self.seed).permutation(some)[:SELECTION_ROWS]

        def losses(averages: torch.Tensor) -> torch.Tensor:
            return torch.tensor([self.loss(rows[some], average.numpy()) for average in averages])

        predicted = np.stack([trial.predicted[some] for trial in self.trials])
        return select_members(torch.from_numpy(predicted), losses, VOTES)

    def refit(self, trial: Trial, fold: Fold, deadline: float) -> Model | None:
        """Train a trial's settings on the training rows of ``fold``, for its number of rounds.

        None if the training fails or is cut short.
        """
        settings = trial.candidate.settings
        if hasattr(settings, "patience"):
            settings = replace(settings, rounds=trial.rounds, patience=0)
        _, train, _ = self.matrices(fold, trial.candidate.basic)
        try:
            model: Model = LEARNERS[trial.candidate.learner].train(settings, self.job(fold, train, None, deadline))
        except failures():
            return None
        return None if model.was_cut else model
