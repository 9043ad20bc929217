"""A lower fidelity: train with fewer epochs, images or channels, and go on later where the training stopped."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Splits, draw_stratified, load_images, split_images
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.retraining.images import accuracy, take, to_device
from automl_ext.nas.retraining.training import NetworkTraining, TrainingConfig, count_parameters
from automl_ext.nas.spaces.registry import space as space_named
from automl_ext.nas.spaces.space import Space
from automl_ext.training.device import choose_device
from automl_ext.training.seeding import generator, rng_state, set_rng_state


class LowerFidelity:
    """Trains a genotype on training images; the score is the accuracy (0 to 1) on all validation images.

    An :class:`~automl_ext.nas.evaluation.Evaluator`. A budget counts the epochs since the start of the training, so
    that ``evaluate(g, 3)`` and then ``evaluate(g, 9, state)`` with the state of the first train exactly what
    ``evaluate(g, 9)`` trains, for 6 epochs: successive halving promotes without starting again. The learning rate falls
    over ``config.epochs``, whatever the budget. Where nothing is promoted, a short training of its own, config.epochs =
    budget, ranks better than the beginning of a long one.

    Args:
        config: channels, cells and epochs are the fidelity; ``config.data`` is read where no ``splits`` are given.
        splits: images already read. The test part is never looked at.
        images: train on so many of the training images, every class in proportion; None: on all of them.
        space: that of ``config.space`` by default.

    Raises:
        ValueError: ``images`` is not 1 to the number of training images.
        UserError: ``config.data`` cannot be read.
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
        splits = splits or split_images(load_images(config.data, subset=config.subset))
        self.device = choose_device(config.device)
        self.valid = to_device(splits.valid, self.device)
        train = splits.train
        if images is not None:
            if not 1 <= images <= len(train.labels):
                raise ValueError(f"images: expected 1 to {len(train.labels)} training images, got {images}")
            train = take(train, draw_stratified(train.labels, images, generator(config.seed)))
        # A NetworkTraining takes the training and the validation images together: of the latter there are none here.
        self.splits = replace(splits, train=train, valid=take(splits.valid, splits.valid.labels.new_zeros(0)))

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Train until ``budget`` epochs are done, ``config.epochs`` by default.

        Args:
            state: of an earlier evaluation of the same genotype by the same configuration; it is not changed.

        Returns:
            The cost of this call, and measured: ``epochs`` trained by this call, the last one's ``loss``,
            ``parameters``. A loss or a weight that is not finite ends the training: failed, with no state; so has one
            whose network gives no numbers.

        Raises:
            ValueError: ``budget`` is not 1 to config.epochs, ``state`` is of another genotype or training, or has had
                more epochs than ``budget``.
        """
        budget = self.config.epochs if budget is None else budget
        if not 1 <= budget <= self.config.epochs:
            raise ValueError(f"budget: expected 1 to {self.config.epochs} epochs (config.epochs), got {budget}")
        start = time.perf_counter()
        with global_chance_kept():
            training = NetworkTraining(self.config, self.space, genotype, self.splits, self.device)
        loss = math.nan
        if state is not None:
            self.check(state, genotype, budget)
            training.load_state_dict(copy.deepcopy(state["training"]))  # an optimizer goes on in the tensors it loads
            loss = state["loss"]
        before = training.epoch
        while training.epoch < budget:
            loss = training.run_epoch()["loss"]
            if not math.isfinite(loss) or not all_finite(training.network):
                return self.failed(training, before, loss, start)
        if not gives_numbers(training.network, self.valid.images[:1]):
            return self.failed(training, before, loss, start)
        score = accuracy(training.network, self.valid)
        after = {
            "genotype": str(genotype),
            "fidelity": self.fidelity(),
            "loss": loss,
            "training": training.state_dict(),
        }
        return Evaluation(score, time.perf_counter() - start, after, measured=self.measured(training, before, loss))

    def fidelity(self) -> dict[str, Any]:
        """What two trainings share when one can go on from the other."""
        return {**vars(self.config), "images": len(self.splits.train.labels)}

    def check(self, state: dict[str, Any], genotype: Any, budget: int) -> None:
        """ValueError for a state that no training of ``genotype`` until ``budget`` can go on from."""
        if "training" not in state:
            raise ValueError(f"state: expected one that LowerFidelity returned, got the keys {sorted(state)}")
        if state["genotype"] != str(genotype):
            raise ValueError(f"state: expected one of {genotype}, got one of {state['genotype']}")
        fidelity = self.fidelity()
        other = [key for key in fidelity if state["fidelity"].get(key) != fidelity[key]]
        if other:
            pairs = ", ".join(f"{key} {state['fidelity'].get(key)} (here {fidelity[key]})" for key in other)
            raise ValueError(f"state: of another training: {pairs}")
        if state["training"]["epoch"] > budget:
            raise ValueError(f"state: has had {state['training']['epoch']} epochs, more than the budget, {budget}")

    def failed(self, training: NetworkTraining, before: int, loss: float, start: float) -> Evaluation:
        measured = self.measured(training, before, loss)
        return Evaluation(-math.inf, time.perf_counter() - start, failed=True, measured=measured)

    def measured(self, training: NetworkTraining, before: int, loss: float) -> dict[str, float]:
        return {"epochs": training.epoch - before, "loss": loss, "parameters": count_parameters(training.network)}


def all_finite(network: nn.Module) -> bool:
    """Whether every weight and batch norm statistic is a number; the loss shows a bad last step one step later."""
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


@torch.no_grad()
def gives_numbers(network: nn.Module, images: Tensor) -> bool:
    """Whether all logits are finite, evaluating. Finite weights may be too large for that; argmax hides it."""
    network.eval()
    return bool(network(images).isfinite().all())


@contextmanager
def global_chance_kept() -> Iterator[None]:
    """Within, global generators may be seeded: after it they go on as if they had not been.

    A NetworkTraining seeds them; a search that draws from them would draw the same after every evaluation.
    """
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
