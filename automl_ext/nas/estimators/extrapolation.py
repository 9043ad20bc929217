"""Extrapolation of learning curves as an evaluator: half of a training predicts its last accuracy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from automl_ext.nas.estimators.learning_curve import fit
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.evaluation import Evaluation
from automl_ext.training.machine.clock import budget_clock


class Extrapolation:
    """Trains a genotype for half of the epochs, and extrapolates the accuracy to the last one.

    This is an :class:`~automl_ext.nas.evaluation.Evaluator` that ignores budgets and states. The score is the mean of
    the prediction by :func:`~automl_ext.nas.estimators.learning_curve.fit`. Its model does not know the schedule of the
    learning rate, whose end raises the accuracy of all architectures.

    Args:
        training: trains the candidates, for at least two epochs.
    """

    def __init__(self, training: LowerFidelity) -> None:
        self.training = training

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Score ``genotype``. ``measured`` contains ``epochs`` and ``observed``, the accuracy after these epochs."""
        clock, epochs = budget_clock(self.training.device), self.training.config.epochs
        start, scores, state = clock(), [], None
        for epoch in range(1, epochs // 2 + 1):
            last = self.training.evaluate(genotype, epoch, state)
            scores.append(last.score)
            measured = {**last.measured, "epochs": epoch}
            if last.failed:
                return replace(last, cost=clock() - start, measured=measured)
            state = last.state
        score = fit(scores).predict(epochs).mean
        return Evaluation(score, clock() - start, measured=measured | {"observed": scores[-1]})
