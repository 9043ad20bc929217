"""Evaluators by name. A new evaluator is a new file and a line in ``EVALUATORS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from automl_ext.data.images import ImageData, Splits
from automl_ext.nas.costs import count_macs, count_parameters, latency_ms
from automl_ext.nas.data import load_splits, network_shape
from automl_ext.nas.estimators.benchmark_table import Table, TableEvaluator
from automl_ext.nas.estimators.extrapolation import Extrapolation
from automl_ext.nas.estimators.inheritance import Inheriting
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity, global_rng_kept
from automl_ext.nas.estimators.weight_sharing import UniformSupernet, WeightSharing
from automl_ext.nas.estimators.widening import Widening
from automl_ext.nas.evaluation import Evaluation, Evaluator, Scoring
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.evolution import EvolutionConfig
from automl_ext.nas.strategies.search_options import SearchConfig
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import derived_seed

FINAL_STREAM = 3  # random stream of the final trainings; 1 is that of ReNAS's controller, 2 that of a screening


def table(config: SearchConfig, space: Space[Any], data: ImageData | None) -> Scoring:
    """Look scores up in the table of NAS-Bench-201.

    Raises:
        UserError: ``config`` sets an option of images or trainings, which the table does not have.
    """
    default = type(config)(evaluator="table").resolved()
    for name in config.unread():
        if (value := getattr(config, name)) != getattr(default, name):
            raise UserError(
                f"{name}: the evaluator table reads no images and trains no network, got {value!r}; expected the "
                "evaluator train or supernet"
            )
    evaluator = TableEvaluator(Table.load(config.table or "cifar10"))
    evaluator.check_budget(config.limits()[1])
    return Scoring(lambda: evaluator)


def train(config: SearchConfig, space: Space[Any], data: ImageData | None) -> Scoring:
    """Train each architecture; with ``inherit``, children inherit the weights of their parents."""

    def make(training: LowerFidelity) -> Evaluator:
        if isinstance(config, EvolutionConfig) and config.inherits:
            return Inheriting(training, config.fine_tune)
        return training

    return _by_training(config, space, data, make)


def curve(config: SearchConfig, space: Space[Any], data: ImageData | None) -> Scoring:
    """Train each architecture for half of the epochs, and extrapolate its learning curve."""
    return _by_training(config, space, data, Extrapolation)


def morphism(config: SearchConfig, space: Space[Any], data: ImageData | None) -> Scoring:
    """Train each architecture with half of the channels, and widen the trained network.

    Raises:
        UserError: the space is not NAS-Bench-201, or there is one channel only.
    """
    if not isinstance(space, NASBench201):
        raise UserError(f"evaluator: morphism widens NAS-Bench-201 cells (space nb201), not {config.space}")
    if config.channels < 2:
        raise UserError(f"channels: the evaluator morphism halves them, expected at least 2, got {config.channels}")
    return _by_training(config, space, data, Widening)


def _by_training(
    config: SearchConfig, space: Space[Any], data: ImageData | None, make: Callable[[LowerFidelity], Evaluator]
) -> Scoring:
    """Prepare an evaluator that trains architectures.

    Finalists are trained from scratch, with another seed: a score that led to the choice of a finalist is too high on
    average, also without inheritance.
    """
    splits = load_splits(config, data)
    evaluator = make(LowerFidelity(config, splits, space=space))

    def final() -> Evaluator:
        return LowerFidelity(replace(config, seed=derived_seed(config.seed, FINAL_STREAM)), splits, space=space)

    return Scoring(lambda: WithCosts(evaluator, config, space, splits), final)


def supernet(config: SearchConfig, space: Space[Any], data: ImageData | None) -> Scoring:
    """Train one supernet, then score every architecture with its weights.

    Raises:
        UserError: see :class:`UniformSupernet`.
    """
    splits = load_splits(config, data)
    job = UniformSupernet(config, space, splits, choose_device(config.device))
    return Scoring(lambda: WithCosts(WeightSharing(job.supernet, splits, space=space), config, space, splits), job=job)


EVALUATORS: dict[str, Callable[[SearchConfig, Space[Any], ImageData | None], Scoring]] = {
    "table": table,
    "train": train,
    "curve": curve,
    "morphism": morphism,
    "supernet": supernet,
}


def scoring(config: SearchConfig, space: Space[Any], data: ImageData | None = None) -> Scoring:
    """Prepare the evaluator that ``config.evaluator`` names. ``data``: images in place of ``config.data``.

    Raises:
        UserError: the evaluator is unknown, the data or the table cannot be read, the space or one of its networks does
            not support the options, or the budget is too small for one evaluation of the table.
    """
    if config.evaluator not in EVALUATORS:
        raise UserError(f"evaluator: expected one of {', '.join(EVALUATORS)}, got {config.evaluator!r}")
    return EVALUATORS[config.evaluator](config, space, data)


class WithCosts:
    """An evaluator that calls another one and adds the costs of the candidate's network to its measurements.

    It adds ``parameters``, ``macs`` (multiply-adds per image) and, if the latency is limited, ``latency_ms``: the time
    of one image on the CPU with one thread, in milliseconds.
    """

    def __init__(self, evaluator: Evaluator, config: SearchConfig, space: Space[Any], splits: Splits) -> None:
        self.evaluator, self.space, self.latency = evaluator, space, config.max_latency_ms is not None
        self.shape = network_shape(splits, config.channels, config.cells)
        self.image = (splits.in_channels, *splits.image_size)

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Evaluate ``genotype`` with the other evaluator, and add the costs."""
        evaluation = self.evaluator.evaluate(genotype, budget, state)
        with global_rng_kept():
            network = self.space.build(genotype, **self.shape)
        evaluation.measured["parameters"] = count_parameters(network)
        evaluation.measured["macs"] = count_macs(network, self.image)
        if self.latency:
            evaluation.measured["latency_ms"] = latency_ms(network, self.image)
        return evaluation
