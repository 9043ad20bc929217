"""The table of learners."""

from __future__ import annotations

from automl_ext.tabular.extra import library
from automl_ext.tabular.learners import constant, forest, lightgbm, linear, xgboost
from automl_ext.tabular.learners.job import TableLearner

LEARNERS = {
    "constant": TableLearner(constant.ConstantSettings, constant.train, constant.ConstantModel.load, ".npz"),
    "lightgbm": TableLearner(lightgbm.LightGBMSettings, lightgbm.train, lightgbm.load, ".txt"),
    "xgboost": TableLearner(xgboost.XGBoostSettings, xgboost.train, xgboost.load, ".json"),
    "forest": TableLearner(forest.ForestSettings, forest.train, forest.ForestModel.load, ".npz"),
    "linear": TableLearner(linear.LinearSettings, linear.train, linear.LinearModel.load, ".npz"),
}


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions by which the learners' libraries refuse data."""
    return ValueError, library("lightgbm").basic.LightGBMError, library("xgboost").core.XGBoostError
