"""Low-fidelity evaluation: short trainings with fewer epochs, images or channels, which can be continued later."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Splits, draw_stratified
from automl_ext.nas.costs import count_parameters
from automl_ext.nas.data import load_splits
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.registry import space as space_named
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.batches import accuracy, take, to_device, without_validation
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.training.config import without_effect
from automl_ext.training.machine.clock import budget_clock
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import generator, rng_state, set_rng_state


@contextmanager
def global_rng_kept() -> Iterator[None]:
    """Restore the state of the global random generators at the end of the block.

    A NetworkTraining seeds these generators. Otherwise, a search that draws from them would repeat its draws after
    every training.
    """
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


class LowerFidelity:
    """Trains a genotype on training images. The score is the accuracy (0 to 1) on all validation images.

    This is an :class:`~automl_ext.nas.evaluation.Evaluator`. A budget counts the epochs since the start of the
    training. ``evaluate(g, 3)`` followed by ``evaluate(g, 9, state)`` with the returned state gives the same network as
    ``evaluate(g, 9)``, so successive halving promotes a candidate without restarting its training. The learning rate
    decreases over ``config.epochs``, whatever the budget. If no candidate is promoted, set config.epochs = budget: a
    complete short training ranks architectures better than the first epochs of a long one.

    Args:
        config: the training; channels, cells and epochs determine the fidelity.
        splits: images already read; None: read ``config.data``. The test part is not used.
        images: number of training images to use, drawn stratified by class; None: all of them.
        space: the search space; None: the one that ``config.space`` names.

    Raises:
        ValueError: ``images`` is not between 1 and the number of training images.
        UserError: ``config.data`` cannot be read, or networks of the space do not support an option, such as an
            auxiliary head.
    """

    def __init__(
        self,
        config: TrainingConfig,
        splits: Splits | None = None,
        *,
        images: int | None = None,
        space: Space[Any] | None = None,
    ) -> None:
        self.config, self.space = config, space or space_named(config.space)
        splits = splits or load_splits(config)
        self.device = choose_device(config.device)
        self.valid = to_device(splits.valid, self.device)
        train = splits.train
        if images is not None:
            if not 1 <= images <= len(train.labels):
                raise ValueError(f"images: expected 1 to {len(train.labels)} training images, got {images}")
            train = take(train, draw_stratified(train.labels, images, generator(config.seed)))
        self.splits = replace(without_validation(splits), train=train)
        with global_rng_kept():
            self.training(self.space.random(Random(config.seed)))  # raises here if the space does not support an option

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "device": None, "valid": to_device(self.valid, torch.device("cpu"))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Choose the device again: the machine of a worker may have a GPU, or none."""
        vars(self).update(state)
        self.device = choose_device(self.config.device)
        self.valid = to_device(self.valid, self.device)

    def training(self, genotype: Any) -> NetworkTraining:
        """Create the training of ``genotype``. It seeds the global random generators."""
        return NetworkTraining(self.config, self.space, genotype, self.splits, self.device)

    @global_rng_kept()
    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Train until ``budget`` epochs are done.

        Args:
            budget: number of epochs since the start of the training, ``config.epochs`` by default.
            state: the state of an earlier evaluation of the same genotype with the same configuration. It is not
                modified.

        Returns:
            The evaluation, with the cost of this call. ``measured`` contains ``epochs`` trained by this call, the
            ``loss`` of the last epoch, and ``parameters``. If the loss, a weight or a logit is not finite, the
            evaluation has failed and has no state.

        Raises:
            ValueError: ``budget`` is not between 1 and config.epochs, or ``state`` belongs to another genotype or
                training or has more epochs than ``budget``.
        """
        budget = self.config.epochs if budget is None else budget
        if not 1 <= budget <= self.config.epochs:
            raise ValueError(f"budget: expected 1 to {self.config.epochs} epochs (config.epochs), got {budget}")
        clock = budget_clock(self.device)
        start = clock()
        training, loss, finite = self.training(genotype), math.nan, True
        if state is not None:
            self.check(state, genotype, budget)
            training.load_state_dict(copy.deepcopy(state["training"]))  # the optimizer modifies the tensors it loads
            loss = state["loss"]
        before = training.epoch
        while finite and training.epoch < budget:
            loss = training.run_epoch()["loss"]
            finite = math.isfinite(loss) and all_finite(training.network)
        parameters = count_parameters(training.network)
        measured = {"epochs": training.epoch - before, "loss": loss, "parameters": parameters}
        if not finite or not finite_logits(training.network, self.valid.images[:1]):
            return Evaluation(-math.inf, clock() - start, failed=True, measured=measured)
        score = accuracy(training.network, self.valid)
        after = {
            "genotype": str(genotype),
            "fidelity": self.fidelity(),
            "loss": loss,
            "training": training.state_dict(),
        }
        return Evaluation(score, clock() - start, after, measured=measured)

    def fidelity(self) -> dict[str, Any]:
        """Return the settings that must be equal to continue a training from its state."""
        ignored = without_effect(self.config)
        settings = {name: value for name, value in vars(self.config).items() if name not in ignored}
        return settings | {"images": len(self.splits.train.labels)}

    def check(self, state: dict[str, Any], genotype: Any, budget: int) -> None:
        """Raise ValueError if ``state`` cannot be continued to ``budget`` epochs of ``genotype``."""
        if "training" not in state:
            raise ValueError(f"state: expected one that LowerFidelity returned, got the keys {sorted(state)}")
        if state["genotype"] != str(genotype):
            raise ValueError(f"state: expected one of {genotype}, got one of {state['genotype']}")
        fidelity = self.fidelity()
        # A state of an earlier version lacks the options added since.
        other = [key for key in fidelity if state["fidelity"].get(key, fidelity[key]) != fidelity[key]]
        if other:
            pairs = ", ".join(f"{key} {state['fidelity'].get(key)} (here {fidelity[key]})" for key in other)
            raise ValueError(f"state: belongs to another training: {pairs}")
        if state["training"]["epoch"] > budget:
            raise ValueError(f"state: has had {state['training']['epoch']} epochs, more than the budget {budget}")


def all_finite(network: nn.Module) -> bool:
    """Return whether all weights and batch norm statistics are finite.

    The loss alone does not show this, because it is computed before the last step.
    """
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


@torch.no_grad()
def finite_logits(network: nn.Module, images: Tensor) -> bool:
    """Return whether all logits are finite in evaluation mode. Large weights can overflow, which argmax would hide."""
    network.eval()
    return bool(network(images).isfinite().all())
