"""Stop a training whose learning curve says that it will not be the best."""

from __future__ import annotations

import math
from typing import Any

from automl_ext.nas.estimators.learning_curve import Prediction, fit
from automl_ext.nas.evaluation import Evaluation, Evaluator


class EarlyStopping:
    """Goes on epoch by epoch, until the probability that the last score will exceed the best so far is too small.

    An :class:`~automl_ext.nas.evaluation.Evaluator` around another one. The best so far is of trainings that came to
    their end; the first candidate always does. It is this object's: ``best`` can be read and set, as a search must
    that goes on, or whose processes have one evaluator each.

    Args:
        evaluator: goes on from its own state; scores are accuracies from 0 to 1.
        epochs: of a whole training.
        threshold: stop below this probability.
        min_epochs: never stop before so many epochs.

    Attributes:
        best: the highest score of a whole training, −inf before the first.
        epochs_trained, epochs_saved: so far.

    Raises:
        ValueError: ``threshold`` is not in [0, 1), or ``min_epochs`` or ``epochs`` below 1.
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
        """Train until ``budget`` epochs are done, ``epochs`` by default, unless that is seen to be hopeless.

        Returns:
            The score measured last or, of a training that was stopped, the one expected after ``epochs``. Measured,
            beside what the last epoch measured: ``epochs`` trained by this call, ``epochs_saved``, ``stopped`` (0 or 1)
            and ``last_score``. The state holds the curve and the training.

        Raises:
            ValueError: ``budget`` is not 1 to epochs, or below the epochs that ``state`` has had.
        """
        budget = self.epochs if budget is None else budget
        curve, inner = (list(state["curve"]), state["inner"]) if state else ([], None)
        if not max(1, len(curve)) <= budget <= self.epochs:
            raise ValueError(f"budget: expected {max(1, len(curve))} to {self.epochs} epochs, got {budget}")
        before, cost, expected = len(curve), 0.0, None
        last: dict[str, float] = {}
        while len(curve) < budget:
            expected = self.hopeless(curve)
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

    def hopeless(self, curve: list[float]) -> float | None:
        """The score that the curve is expected to end with, where it hardly can exceed the best; else None."""
        if len(curve) < self.min_epochs or self.best == -math.inf:
            return None
        prediction = self.predict(curve)
        return prediction.mean if prediction.exceeds(self.best) < self.threshold else None

    def predict(self, curve: list[float]) -> Prediction:
        """Of the score after ``epochs``."""
        return fit(curve).predict(self.epochs)
