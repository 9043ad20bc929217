"""Early termination of trainings whose learning curves are unpromising."""

from __future__ import annotations

import math
from typing import Any

from automl_ext.nas.estimators.learning_curve import Prediction, fit
from automl_ext.nas.evaluation import Evaluation, Evaluator


class EarlyStopping:
    """Trains epoch by epoch and stops if the final score is unlikely to exceed the best one so far.

    This is an :class:`~automl_ext.nas.evaluation.Evaluator` that wraps another one. Only complete trainings count for
    the best score, and the first training is always complete. ``best`` is not part of the returned states: a resumed
    search, or a search with several processes, must save and set it.

    Args:
        evaluator: an evaluator that continues from its own state; its scores are accuracies from 0 to 1.
        epochs: number of epochs of a complete training.
        threshold: stop if the probability of exceeding the best score is below this value.
        min_epochs: smallest number of epochs before stopping.

    Attributes:
        best: the highest score of a complete training, −inf before the first.
        epochs_trained: total number of epochs trained.
        epochs_saved: total number of epochs saved.

    Raises:
        ValueError: ``threshold`` is not in [0, 1), or ``min_epochs`` or ``epochs`` is below 1.
    """

    def __init__(self, evaluator: Evaluator, epochs: int, *, threshold: float = 0.05, min_epochs: int = 10) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: expected a probability in [0, 1), got {threshold}")
        for name, value in (("epochs", epochs), ("min_epochs", min_epochs)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.evaluator, self.epochs, self.threshold, self.min_epochs = evaluator, epochs, threshold, min_epochs
        self.best, self.epochs_trained, self.epochs_saved = -math.inf, 0, 0

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Train until ``budget`` epochs are done, unless the candidate is unpromising.

        Args:
            genotype: the architecture.
            budget: number of epochs since the start of the training, ``epochs`` by default.
            state: the state of an earlier evaluation of the same architecture.

        Returns:
            The last score or, if the training was stopped, the score expected after ``epochs``. ``measured`` contains
            the measurements of the last epoch, ``epochs`` trained by this call, ``epochs_saved``, ``stopped`` (0 or 1)
            and ``last_score``. The state contains the curve and the state of the training.

        Raises:
            ValueError: ``budget`` is not between 1 and ``epochs``, or is below the number of epochs in ``state``.
        """
        budget = self.epochs if budget is None else budget
        curve, inner = (list(state["curve"]), state["inner"]) if state else ([], None)
        if not max(1, len(curve)) <= budget <= self.epochs:
            raise ValueError(f"budget: expected {max(1, len(curve))} to {self.epochs} epochs, got {budget}")
        before, cost, expected = len(curve), 0.0, None
        last: dict[str, float] = {}
        while len(curve) < budget:
            expected = self.unpromising(curve)
            if expected is not None:
                break
            found = self.evaluator.evaluate(genotype, len(curve) + 1, inner)
            cost += found.cost
            self.epochs_trained += 1
            if found.failed:
                failure = {**found.measured, "epochs": len(curve) + 1 - before, "epochs_saved": 0, "stopped": 0}
                return Evaluation(-math.inf, cost, failed=True, measured=failure)
            inner, last = found.state, found.measured
            curve.append(found.score)
        if len(curve) == self.epochs:
            self.best = max(self.best, curve[-1])
        saved = budget - len(curve)
        self.epochs_saved += saved
        measured = {
            **last,
            "epochs": len(curve) - before,
            "epochs_saved": saved,
            "stopped": int(expected is not None),
            "last_score": curve[-1],
        }
        score = curve[-1] if expected is None else expected
        return Evaluation(score, cost, {"curve": curve, "inner": inner}, measured=measured)

    def unpromising(self, curve: list[float]) -> float | None:
        """Return the expected final score if it is unlikely to exceed the best one, otherwise None."""
        if len(curve) < self.min_epochs or self.best == -math.inf:
            return None
        prediction = self.predict(curve)
        return prediction.mean if prediction.exceeds(self.best) < self.threshold else None

    def predict(self, curve: list[float]) -> Prediction:
        """Predict the score after ``epochs`` epochs."""
        return fit(curve).predict(self.epochs)
