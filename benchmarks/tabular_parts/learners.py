"""LightGBM and XGBoost as the contenders use them: one core, categories as such, early stopping, a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from data_sets import loss_of

from automl_ext.tabular.learners.lightgbm import LightGBMSettings
from automl_ext.tabular.learners.xgboost import XGBoostSettings
from automl_ext.training.search_space import Values, search_space

if TYPE_CHECKING:
    import pandas as pd

Predict = Callable[["pd.DataFrame"], np.ndarray]
Point = dict[str, Any]

ROUNDS = 1000
PATIENCE = 40
SPACES: dict[str, dict[str, Values]] = {
    "lightgbm": search_space(LightGBMSettings),
    "xgboost": search_space(XGBoostSettings),
}


def encoder(train: pd.DataFrame) -> Predict:
    """Return a function that converts a table's strings to the categories of the training rows; others are missing."""
    import pandas as pd

    kinds = {
        name: float if pd.api.types.is_numeric_dtype(values) else pd.CategoricalDtype(sorted(values.dropna().unique()))
        for name, values in train.items()
    }
    return lambda frame: frame[list(kinds)].astype(kinds)


@dataclass
class Rows:
    """Encoded rows for both libraries.

    Args:
        x: encoded features.
        y: class numbers or numbers.
        classes: number of classes; 0 for a number.
    """

    x: pd.DataFrame
    y: np.ndarray
    classes: int
    made: dict[str, Any] = field(default_factory=dict)

    def for_lightgbm(self, reference: Any = None) -> Any:
        """Return the rows as a data set of LightGBM; made once, because that takes as long as many trees."""
        if "lightgbm" not in self.made:
            import lightgbm

            same = {"feature_pre_filter": False, "verbosity": -1, "num_threads": 1, "force_row_wise": True}
            self.made["lightgbm"] = lightgbm.Dataset(
                self.x, self.y, reference=reference, params=same, free_raw_data=False
            ).construct()
        return self.made["lightgbm"]

    def for_xgboost(self) -> Any:
        if "xgboost" not in self.made:
            import xgboost

            self.made["xgboost"] = xgboost.DMatrix(self.x, self.y, enable_categorical=True, nthread=1)
        return self.made["xgboost"]


@dataclass
class Model:
    """A trained model, its best number of rounds, and whether the deadline ended the training."""

    predict: Callable[[Rows], np.ndarray]
    rounds: int
    was_cut: bool


@dataclass
class Stop:
    """Ends training ``PATIENCE`` rounds after the best validation loss, or at a deadline of ``time.monotonic``."""

    deadline: float
    best: float = float("inf")
    rounds: int = 0
    was_cut: bool = False

    def __call__(self, rounds: int, loss: float | None) -> bool:
        if loss is None or loss < self.best:
            self.best, self.rounds = loss if loss is not None else self.best, rounds
        self.was_cut = time.monotonic() > self.deadline
        return self.was_cut or rounds - self.rounds >= PATIENCE


def train_lightgbm(point: Point, rows: Rows, valid: Rows | None, deadline: float, seed: int, rounds: int) -> Model:
    import lightgbm

    parameters = {
        "objective": ("regression", "", "binary")[rows.classes] if rows.classes < 3 else "multiclass",
        **({"num_class": rows.classes} if rows.classes > 2 else {}),
        "feature_pre_filter": False,
        "bagging_freq": int(point.get("bagging_fraction", 1.0) < 1),
        "seed": seed,
        "num_threads": 1,
        "force_row_wise": True,
        "deterministic": True,
        "verbosity": -1,
        **point,
    }
    stop = Stop(deadline)

    def after_round(env: Any) -> None:
        results = env.evaluation_result_list
        if stop(env.iteration + 1, results[0][2] if results else None):
            raise lightgbm.callback.EarlyStopException(env.iteration, results or [])

    data = rows.for_lightgbm()
    watched = [] if valid is None else [valid.for_lightgbm(data)]
    booster = lightgbm.train(parameters, data, rounds, valid_sets=watched, callbacks=[after_round])
    return Model(
        lambda new: _columns(booster.predict(new.x, num_iteration=stop.rounds), rows.classes), stop.rounds, stop.was_cut
    )


def train_xgboost(point: Point, rows: Rows, valid: Rows | None, deadline: float, seed: int, rounds: int) -> Model:
    import xgboost

    parameters = {
        "objective": ("reg:squarederror", "", "binary:logistic")[rows.classes]
        if rows.classes < 3
        else "multi:softprob",
        **({"num_class": rows.classes} if rows.classes > 2 else {}),
        "seed": seed,
        "nthread": 1,
        "verbosity": 0,
        **point,
    }
    stop = Stop(deadline)

    class AfterRound(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            losses = next(iter(evals_log["valid"].values())) if evals_log else [None]
            return stop(epoch + 1, losses[-1])

    watched = [] if valid is None else [(valid.for_xgboost(), "valid")]
    booster = xgboost.train(
        parameters, rows.for_xgboost(), rounds, evals=watched, callbacks=[AfterRound()], verbose_eval=False
    )
    return Model(
        lambda new: _columns(booster.predict(new.for_xgboost(), iteration_range=(0, stop.rounds)), rows.classes),
        stop.rounds,
        stop.was_cut,
    )


TRAIN = {"lightgbm": train_lightgbm, "xgboost": train_xgboost}


def validation_loss(
    learner: str, point: Point, rows: Rows, valid: Rows, deadline: float, seed: int, rounds: int = ROUNDS
) -> tuple[float, int]:
    """Train with early stopping. Return the validation loss and the best number of rounds."""
    model = TRAIN[learner](point, rows, valid, deadline, seed, rounds)
    return loss_of(valid.y, model.predict(valid)), model.rounds


def _columns(predicted: Any, classes: int) -> np.ndarray:
    """Return probabilities [N, classes]; numbers stay as they are."""
    predicted = np.asarray(predicted, dtype=float)
    return np.stack([1 - predicted, predicted], axis=1) if classes == 2 else predicted
