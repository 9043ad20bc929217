"""Where the scores of a search come from: a table, trainings, or a supernet that is trained first."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from automl_ext.data.images import Splits, load_images, split_images
from automl_ext.nas.estimators.inheritance import Inheriting
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.estimators.table import Table, TableEvaluator
from automl_ext.nas.estimators.weight_sharing import UniformSupernet, UniformSupernetConfig, WeightSharing
from automl_ext.nas.evaluation import Evaluator
from automl_ext.nas.search.config import ReNASConfig, SearchConfig
from automl_ext.nas.spaces.space import Space
from automl_ext.training.device import choose_device
from automl_ext.training.epochs import Epochs
from automl_ext.training.run import Run


def evaluator_of(config: SearchConfig, space: Space[Any], splits: Splits | None) -> Evaluator:
    """The table, or trainings on ``splits``; ReNAS's children inherit weights.

    Raises:
        UserError: no table or a broken one, a budget too small for one of its evaluations.
    """
    if splits is None:
        table = TableEvaluator(Table.load(config.table))
        table.check_budget(config.limits()[1])
        return table
    training = LowerFidelity(config, splits, space=space)
    return Inheriting(training, config.fine_tune) if isinstance(config, ReNASConfig) else training


def splits_of(config: SearchConfig) -> Splits | None:
    """The images; a table needs none."""
    return None if config.evaluator == "table" else split_images(load_images(config.data, subset=config.subset))


def supernet_of(config: SearchConfig, space: Space[Any], splits: Splits) -> UniformSupernet:
    """The supernet, untrained.

    Raises:
        UserError: the space has none.
    """
    shared = {
        field.name: getattr(config, field.name)
        for field in fields(UniformSupernetConfig)
        if hasattr(config, field.name)
    }
    return UniformSupernet(UniformSupernetConfig(**shared), space, splits, choose_device(config.device))


def train_supernet(supernet: UniformSupernet, run: Run, stop_after: int | None) -> bool:
    """Train it, or go on; False when stopped."""
    with Epochs(run, supernet.epochs, "supernet", stop_after) as epochs:
        return epochs.run(supernet, "supernet", {"search": None})


def weight_sharing(supernet: UniformSupernet, space: Space[Any], splits: Splits) -> WeightSharing:
    return WeightSharing(supernet.supernet, splits, space=space)
