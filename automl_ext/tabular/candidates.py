"""Candidates: settings of learners that are trained on every fold, in the order in which they are tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from automl_ext.tabular.extra import library
from automl_ext.tabular.features.preparation import Matrix, Preparation
from automl_ext.tabular.learners.constant import ConstantSettings
from automl_ext.tabular.learners.forest import ForestSettings
from automl_ext.tabular.learners.job import Model
from automl_ext.tabular.learners.lightgbm import LightGBMSettings
from automl_ext.tabular.learners.linear import LinearSettings
from automl_ext.tabular.learners.registry import LEARNERS
from automl_ext.tabular.learners.xgboost import XGBoostSettings
from automl_ext.tabular.table.columns import Column
from automl_ext.tabular.table.task import Array
from automl_ext.training.search_space import search_space, with_point
from automl_ext.tune import portfolio as portfolios

LIGHTGBM = "lightgbm default"  # the candidate with which constructed features are judged
TUNED = ("lightgbm", "xgboost")  # learners that TPE and the portfolio tune


@dataclass(frozen=True)
class ModelCandidate:
    """Settings to try.

    Attributes:
        name: for the leaderboard; unique.
        basic: without constructed features.
    """

    name: str
    learner: str
    settings: Any
    basic: bool = False


# The first boosting: quick, and with small trees that suit few rows.
SMALL = ModelCandidate(
    "lightgbm small",
    "lightgbm",
    LightGBMSettings(num_leaves=8, feature_fraction=0.8, lambda_l2=1.0, patience=20),
    basic=True,
)
# Both libraries' own defaults, exactly: 100 rounds, all of them used, no constructed features.
DEFAULTS = (
    ModelCandidate("xgboost default", "xgboost", XGBoostSettings(rounds=100, patience=0), basic=True),
    ModelCandidate(LIGHTGBM, "lightgbm", LightGBMSettings(rounds=100, patience=0), basic=True),
)
# LightGBM's defaults with as many rounds as lower the validation loss, without constructed features.
EARLY_STOPPING = ModelCandidate("lightgbm early stopping", "lightgbm", LightGBMSettings(), basic=True)
# With a linear model, the baseline that stands on every leaderboard.
CONSTANT = ModelCandidate("constant", "constant", ConstantSettings(), basic=True)
BASELINES = ("constant", "linear")  # learners that are never given up for want of time
# Different kinds of models that do well on many tables: linear with constructed features, forests, slow boosting.
PRESETS = (
    ModelCandidate("linear with features", "linear", LinearSettings()),
    ModelCandidate(
        "lightgbm slow",
        "lightgbm",
        LightGBMSettings(learning_rate=0.05, num_leaves=24, feature_fraction=0.8, bagging_fraction=0.8),
    ),
    ModelCandidate("extra trees", "forest", ForestSettings()),
    ModelCandidate(
        "xgboost slow",
        "xgboost",
        XGBoostSettings(learning_rate=0.05, subsample=0.8, colsample_bytree=0.7, min_child_weight=2.0),
    ),
    ModelCandidate(
        "lightgbm extra",
        "lightgbm",
        LightGBMSettings(extra_trees=True, learning_rate=0.06, num_leaves=48, feature_fraction=0.9),
    ),
    ModelCandidate("random forest", "forest", ForestSettings(extra=False, min_samples_leaf=3)),
)


def linear(penalty: float) -> ModelCandidate:
    """Return a linear model without constructed features."""
    return ModelCandidate(f"linear, penalty {penalty:g}", "linear", LinearSettings(penalty), basic=True)


@dataclass
class Fold:
    """One split, prepared with statistics of its training rows.

    Attributes:
        train, valid: row numbers.
        sets: whether features are constructed → preparation, matrix of the training rows, of the validation rows.
        order: the columns, the most important first; None: not yet computed.
        begun: name → model of a candidate that was trained on this split only, and its seconds.
    """

    train: Array
    valid: Array
    sets: dict[bool, tuple[Preparation, Matrix, Matrix]] = field(default_factory=dict)
    order: list[Column] | None = None
    begun: dict[str, tuple[Model, float]] = field(default_factory=dict)


@dataclass
class Trial:
    """A candidate trained on every fold.

    Attributes:
        models: one per fold.
        rounds: number of rounds that predictions use: the mean of the best numbers of rounds of the folds.
        predicted: predictions of the validation rows, fold after fold.
        loss: loss on the validation rows of all folds together, as in the leaderboard.
        losses: one per fold.
        seconds: wall-clock time of training and prediction.
        number: position in the order of the trials.
    """

    candidate: ModelCandidate
    models: list[Model]
    rounds: int
    predicted: Array
    loss: float
    losses: list[float]
    seconds: float
    number: int = 0


def portfolio() -> dict[str, list[ModelCandidate]]:
    """Return, for each tuned learner, the settings of its portfolio: a few that did well on known tables."""
    return {
        name: [
            ModelCandidate(f"{name} portfolio {i}", name, with_point(LEARNERS[name].settings(), point))
            for i, point in enumerate(_points(name), 1)
        ]
        for name in TUNED
    }


def _points(learner: str) -> list[dict[str, Any]]:
    """Return the points of a learner's portfolio, without fields that are not settings of the learner."""
    known = search_space(LEARNERS[learner].settings)
    points = portfolios.portfolio(f"fit --learner {learner}", spaces=[known])
    return [{name: value for name, value in point.items() if name in known} for point in points]


class Tuner:
    """Draws settings of one learner by TPE (Bergstra et al. 2011), as Optuna implements it."""

    def __init__(self, learner: str, seed: int) -> None:
        optuna = library("optuna")
        from automl_ext.tune.space import distributions  # imports Optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self.learner, self.drawn = optuna, learner, 0
        self._space = search_space(LEARNERS[learner].settings)
        self._distributions = distributions(self._space)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5)
        self._study = optuna.create_study(sampler=sampler)

    def add(self, trial: Trial) -> None:
        """Record a trial whose settings TPE did not draw, as the nearest point of the space."""
        values = {name: getattr(trial.candidate.settings, name) for name in self._space}
        from automl_ext.tune.space import nearest  # imports Optuna

        params = nearest(self._space, values)  # a default may be outside, such as no penalty
        create = self._optuna.trial.create_trial
        self._study.add_trial(create(params=params, distributions=self._distributions, value=trial.loss))

    def ask(self) -> tuple[Any, ModelCandidate]:
        """Draw settings. Return Optuna's trial, for :meth:`tell`, and the candidate."""
        self.drawn += 1
        trial = self._study.ask(self._distributions)
        settings = with_point(LEARNERS[self.learner].settings(), trial.params)
        return trial, ModelCandidate(f"{self.learner} TPE {self.drawn}", self.learner, settings)

    def tell(self, trial: Any, loss: float | None, rejected: float | None) -> None:
        """Record a trial.

        Args:
            trial: the first result of :meth:`ask`.
            loss: its loss; None if it was not finished.
            rejected: the loss on the first fold because of which it was given up; TPE treats such a trial as worse than
                finished ones.
        """
        state = self._optuna.trial.TrialState
        if loss is not None:
            self._study.tell(trial, loss)
        elif rejected is not None:
            trial.report(rejected, 0)
            self._study.tell(trial, state=state.PRUNED)
        else:
            self._study.tell(trial, state=state.FAIL)
