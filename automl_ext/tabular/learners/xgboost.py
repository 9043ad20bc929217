"""XGBoost (Chen and Guestrin 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.features.preparation import Matrix
from automl_ext.tabular.learners.job import FitJob, Stopper, as_predictions
from automl_ext.tabular.learners.lightgbm import MAX_ROUNDS
from automl_ext.tabular.table.task import Array, TableTask
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.search_space import Range


@dataclass
class XGBoostSettings:
    """Settings of XGBoost; the defaults are XGBoost's, with early stopping."""

    learning_rate: Annotated[float, Range(0.02, 0.3, log=True)] = 0.3
    """Factor of each tree's values."""
    max_depth: Annotated[int, Range(2, 10)] = 6
    """Largest depth of a tree."""
    min_child_weight: Annotated[float, Range(0.3, 30.0, log=True)] = 1.0
    """Smallest sum of second derivatives in a leaf."""
    subsample: Annotated[float, Range(0.5, 1.0)] = 1.0
    """Share of the rows that each tree is trained on, drawn at random."""
    colsample_bytree: Annotated[float, Range(0.3, 1.0)] = 1.0
    """Share of the features that each tree may use, drawn at random."""
    reg_lambda: Annotated[float, Range(0.1, 20.0, log=True)] = 1.0
    """L2 penalty of the leaves' values."""
    reg_alpha: Annotated[float, Range(1e-3, 5.0, log=True)] = 0.0
    """L1 penalty of the leaves' values; the target of a regression is scaled to an interquartile range of 1."""
    rounds: int = 5000
    """Largest number of boosting rounds."""
    patience: int = 40
    """End when the validation loss has not improved for this number of rounds; 0: train all rounds."""

    def __post_init__(self) -> None:
        check_range(self, "learning_rate", above=0)
        check_range(self, "max_depth", low=1, high=16)
        check_range(self, "min_child_weight", "reg_lambda", "reg_alpha", "patience", low=0)
        check_range(self, "subsample", "colsample_bytree", above=0, high=1)
        check_range(self, "rounds", low=1, high=MAX_ROUNDS)


def train(settings: XGBoostSettings, job: FitJob) -> XGBoostModel:
    xgb = library("xgboost")
    parameters = {
        **_objective(job.task),
        "learning_rate": settings.learning_rate,
        "max_depth": max(1, min(settings.max_depth, len(job.y).bit_length() - 1)),
        "min_child_weight": settings.min_child_weight,
        "subsample": settings.subsample,
        "colsample_bytree": settings.colsample_bytree,
        "reg_lambda": settings.reg_lambda,
        "reg_alpha": settings.reg_alpha,
        "tree_method": "hist",
        "seed": job.seed,
        "nthread": job.threads,
        "verbosity": 0,
    }
    types = _types(job.train)
    data = _data(job.train.x, types, job.threads, _targets(job.y, job.task), job.weight)
    watched = []
    if job.valid is not None and settings.patience:
        watched = [(_data(job.valid.x, types, job.threads, _targets(job.valid_y, job.task), job.valid_weight), "valid")]
    stopper = Stopper(settings.patience if watched else 0, job.deadline)

    class AfterRound(xgb.callback.TrainingCallback):  # type: ignore[name-defined]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            value = next(iter(evals_log["valid"].values()))[-1] if watched else None
            return stopper.is_over(epoch + 1, value)

    booster = xgb.train(parameters, data, settings.rounds, evals=watched, callbacks=[AfterRound()], verbose_eval=False)
    return XGBoostModel(booster, job.task, types, stopper.best_rounds, stopper.was_cut)


def _objective(task: TableTask) -> dict[str, Any]:
    if task.kind == "binary":
        return {"objective": "binary:logistic", "eval_metric": "logloss"}
    if task.kind == "multiclass":
        return {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": len(task.classes)}
    if task.metric == "mae":
        # By default, version 3.4 starts at the mean, which is huge if one target is; the median of scaled targets is 0.
        return {"objective": "reg:absoluteerror", "eval_metric": "mae", "base_score": 0.0}
    return {"objective": "reg:squarederror", "eval_metric": "rmse"}


def _targets(y: Array | None, task: TableTask) -> Array | None:
    """Return scaled targets; with absolute errors, at most 10,000 interquartile ranges from the median.

    The medians that are fitted hardly depend on how far a huge target is, but the leaves of version 3.4 do.
    """
    return y if y is None or task.metric != "mae" else np.clip(y, -1e4, 1e4)


def _types(matrix: Matrix) -> list[str]:
    codes = set(matrix.categorical)
    return ["c" if i in codes else "float" for i in range(matrix.x.shape[1])]


def _data(x: Array, types: list[str], threads: int, y: Array | None = None, weight: Array | None = None) -> Any:
    return library("xgboost").DMatrix(
        x, y, weight=weight, feature_types=types, enable_categorical=True, nthread=threads, missing=np.nan
    )


class XGBoostModel:
    """A trained XGBoost model."""

    def __init__(self, booster: Any, task: TableTask, types: list[str], rounds: int, was_cut: bool) -> None:
        self.booster, self.task, self.types = booster, task, types
        self.rounds, self.was_cut = rounds, was_cut

    def predict(self, x: Array, rounds: int) -> Array:
        if not len(x):
            return np.zeros((0, len(self.task.classes)) if self.task.is_classification else 0)
        raw = self.booster.predict(
            _data(x, self.types, 1), iteration_range=(0, min(rounds, self.booster.num_boosted_rounds()))
        )
        return as_predictions(raw.astype(np.float64), self.task)

    def importance(self, rounds: int) -> Array:
        gains = self.booster[: min(rounds, self.booster.num_boosted_rounds())].get_score(importance_type="total_gain")
        return np.array([gains.get(f"f{i}", 0.0) for i in range(len(self.types))])

    def save(self, path: Path) -> None:
        self.booster.save_model(path)


def load(path: Path, task: TableTask) -> XGBoostModel:
    """Read a model, whose bytes the caller has checked."""
    xgb = library("xgboost")
    booster = xgb.Booster()
    try:
        booster.load_model(path)
    except (xgb.core.XGBoostError, ValueError) as error:
        raise UserError(f"{path} is not an XGBoost model: {error}") from None
    return XGBoostModel(booster, task, booster.feature_types or [], booster.num_boosted_rounds(), False)
