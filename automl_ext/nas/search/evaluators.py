"""Evaluators by name. A new evaluator is a new file and a line in ``EVALUATORS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from automl_ext.data.images import Splits, load_images, split_images
from automl_ext.nas.estimators.inheritance import Inheriting
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.estimators.table import Table, TableEvaluator
from automl_ext.nas.estimators.weight_sharing import UniformSupernet, UniformSupernetConfig, WeightSharing
from automl_ext.nas.evaluation import Evaluator, Scoring
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.config import SearchConfig
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.training.device import choose_device
from automl_ext.training.errors import UserError


def table(config: SearchConfig, space: Space[Any]) -> Scoring:
    """Look scores up in the table of NAS-Bench-201."""
    evaluator = TableEvaluator(Table.load(config.table))
    evaluator.check_budget(config.limits()[1])
    return Scoring(lambda: evaluator)


def train(config: SearchConfig, space: Space[Any]) -> Scoring:
    """Train each architecture; with ReNAS, children inherit the weights of their parents."""
    training = LowerFidelity(config, load_splits(config), space=space)
    evaluator: Evaluator = Inheriting(training, config.fine_tune) if isinstance(config, ReNASConfig) else training
    return Scoring(lambda: evaluator)


def supernet(config: SearchConfig, space: Space[Any]) -> Scoring:
    """Train one supernet, then score every architecture with its weights."""
    splits = load_splits(config)
    names = [field.name for field in fields(UniformSupernetConfig) if hasattr(config, field.name)]
    settings = UniformSupernetConfig(**{name: getattr(config, name) for name in names})
    job = UniformSupernet(settings, space, splits, choose_device(config.device))
    return Scoring(partial(WeightSharing, job.supernet, splits, space=space), job)


def load_splits(config: SearchConfig) -> Splits:
    """Read the images that ``config.data`` names and split them."""
    return split_images(load_images(config.data, subset=config.subset))


EVALUATORS: dict[str, Callable[[SearchConfig, Space[Any]], Scoring]] = {
    "table": table,
    "train": train,
    "supernet": supernet,
}


def scoring(config: SearchConfig, space: Space[Any]) -> Scoring:
    """Prepare the evaluator that ``config.evaluator`` names.

    Raises:
        UserError: the evaluator is unknown, the data or the table cannot be read, the space or one of its networks does
            not support the options, or the budget is too small for one evaluation of the table.
    """
    if config.evaluator not in EVALUATORS:
        raise UserError(f"evaluator: expected one of {', '.join(EVALUATORS)}, got {config.evaluator!r}")
    return EVALUATORS[config.evaluator](config, space)
