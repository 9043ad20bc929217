"""The table of learners."""

from __future__ import annotations

from automl_ext.tabular.learners import forest, lightgbm, linear, xgboost
from automl_ext.tabular.learners.job import Learner

LEARNERS = {
    "lightgbm": Learner(lightgbm.LightGBMSettings, lightgbm.train, lightgbm.load, ".txt"),
    "xgboost": Learner(xgboost.XGBoostSettings, xgboost.train, xgboost.load, ".json"),
    "forest": Learner(forest.ForestSettings, forest.train, forest.load, ".npz"),
    "linear": Learner(linear.LinearSettings, linear.train, linear.load, ".npz"),
}
