"""Tuning of hyperparameters: search spaces, samplers, studies, and portfolios from earlier studies."""

from automl_ext.training.search_space import Categories, Range
from automl_ext.tune.config import TuneConfig
from automl_ext.tune.reporting import Pruned, report
from automl_ext.tune.tuning import tune

__all__ = ["Categories", "Pruned", "Range", "TuneConfig", "report", "tune"]
