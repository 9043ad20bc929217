"""LightGBM (Ke et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.learners.job import FitJob, Stopper, as_predictions
from automl_ext.tabular.table.task import Array, TableTask
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.search_space import Categories, Range

MAX_ROUNDS = 100_000


@dataclass
class LightGBMSettings:
    """Settings of LightGBM; the defaults are LightGBM's, with early stopping."""

    learning_rate: Annotated[float, Range(0.02, 0.3, log=True)] = 0.1
    """Factor of each tree's values."""
    num_leaves: Annotated[int, Range(4, 256, log=True)] = 31
    """Largest number of leaves of a tree; at most a quarter of the training rows."""
    min_child_samples: Annotated[int, Range(2, 128, log=True)] = 20
    """Smallest number of rows in a leaf."""
    feature_fraction: Annotated[float, Range(0.3, 1.0)] = 1.0
    """Share of the features that each tree may use, drawn at random."""
    bagging_fraction: Annotated[float, Range(0.5, 1.0)] = 1.0
    """Share of the rows that each tree is trained on, drawn at random."""
    lambda_l2: Annotated[float, Range(1e-3, 10.0, log=True)] = 0.0
    """L2 penalty of the leaves' values."""
    extra_trees: Annotated[bool, Categories(False, True)] = False
    """Try one random threshold per feature instead of all (Geurts et al. 2006)."""
    rounds: int = 5000
    """Largest number of boosting rounds."""
    patience: int = 40
    """End when the validation loss has not improved for this number of rounds; 0: train all rounds."""

    def __post_init__(self) -> None:
        check_range(self, "learning_rate", above=0)
        check_range(self, "num_leaves", low=2, high=131_072)
        check_range(self, "min_child_samples", low=1)
        check_range(self, "feature_fraction", "bagging_fraction", above=0, high=1)
        check_range(self, "lambda_l2", "patience", low=0)
        check_range(self, "rounds", low=1, high=MAX_ROUNDS)


def train(settings: LightGBMSettings, job: FitJob) -> LightGBMModel:
    lgb = library("lightgbm")
    n = len(job.y)
    parameters = {
        **_objective(job.task),
        "learning_rate": settings.learning_rate,
        "num_leaves": max(2, min(settings.num_leaves, n // 4)),
        "min_child_samples": settings.min_child_samples,
        "feature_fraction": settings.feature_fraction,
        "bagging_fraction": settings.bagging_fraction,
        "bagging_freq": int(settings.bagging_fraction < 1),
        "lambda_l2": settings.lambda_l2,
        "extra_trees": settings.extra_trees,
        "seed": job.seed,
        "num_threads": job.threads,
        "deterministic": True,
        "force_row_wise": True,  # without it, LightGBM times both ways, and the result depends on that
        "verbosity": -1,
    }
    data = lgb.Dataset(
        job.train.x, job.y, weight=job.weight, categorical_feature=job.train.categorical, params={"verbosity": -1}
    )
    valid = None
    if job.valid is not None and settings.patience:
        valid = lgb.Dataset(job.valid.x, job.valid_y, weight=job.valid_weight, reference=data)
    stopper = Stopper(settings.patience if valid is not None else 0, job.deadline)

    def after_round(env: Any) -> None:
        value = env.evaluation_result_list[0][2] if env.evaluation_result_list else None
        if stopper.is_over(env.iteration + 1, value):
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list or [])

    booster = lgb.train(
        parameters, data, settings.rounds, valid_sets=[valid] if valid is not None else None, callbacks=[after_round]
    )
    return LightGBMModel(booster, job.task, stopper.best_rounds, stopper.was_cut)


def _objective(task: TableTask) -> dict[str, Any]:
    if task.kind == "binary":
        return {"objective": "binary", "metric": "binary_logloss"}
    if task.kind == "multiclass":
        return {"objective": "multiclass", "metric": "multi_logloss", "num_class": len(task.classes)}
    if task.metric == "mae":
        return {"objective": "regression_l1", "metric": "l1"}
    return {"objective": "regression", "metric": "l2"}


class LightGBMModel:
    """A trained LightGBM model."""

    def __init__(self, booster: Any, task: TableTask, rounds: int, was_cut: bool) -> None:
        self.booster, self.task, self.rounds, self.was_cut = booster, task, rounds, was_cut

    def predict(self, x: Array, rounds: int) -> Array:
        return as_predictions(np.asarray(self.booster.predict(x, num_iteration=rounds, num_threads=1)), self.task)

    def importance(self, rounds: int) -> Array:
        return np.asarray(self.booster.feature_importance("gain", iteration=rounds), dtype=np.float64)

    def save(self, path: Path) -> None:
        path.write_text(self.booster.model_to_string(num_iteration=-1))


def load(path: Path, task: TableTask) -> LightGBMModel:
    """Read a model, whose bytes the caller has checked: LightGBM may crash on damaged ones."""
    lgb = library("lightgbm")
    try:
        booster = lgb.Booster(model_str=path.read_text())
    except (lgb.basic.LightGBMError, ValueError) as error:
        raise UserError(f"{path} is not a LightGBM model: {error}") from None
    return LightGBMModel(booster, task, booster.num_trees() // booster.num_model_per_iteration(), False)
