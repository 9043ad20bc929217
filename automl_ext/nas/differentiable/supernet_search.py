"""A differentiable search as a job of epochs: alternating steps of the weights and of α.

The algorithms differ in their sampler and options only. The switches against collapse are options of the configuration,
one function each.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.images import Split, Splits
from automl_ext.nas.differentiable.beta_decay import beta_loss, beta_weight
from automl_ext.nas.differentiable.candidates import all_candidates, check_names, masked, without_none
from automl_ext.nas.differentiable.collapse import alpha_scalars
from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.deriving import derived_choices, skip_share, with_edge_strengths
from automl_ext.nas.differentiable.fair_sampling import fair_cycle
from automl_ext.nas.differentiable.samplers import Sampler
from automl_ext.nas.differentiable.steps import alpha_step, weight_step
from automl_ext.nas.retraining.batch_loss import check_batches
from automl_ext.nas.retraining.class_weights import class_weights
from automl_ext.nas.retraining.images import augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.optimizer import nesterov_sgd
from automl_ext.nas.retraining.supernet_step import supernet_step
from automl_ext.nas.retraining.training import network_shape
from automl_ext.nas.spaces.partial_channels import edge_weights
from automl_ext.nas.spaces.space import Space, supernet_of
from automl_ext.nas.spaces.supernet import Choice, Supernet, batch_accuracy
from automl_ext.training import ranks
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.errors import UserError
from automl_ext.training.machine.clock import Clock
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import generator, seed_everything

VALID_IMAGES = 500  # largest number of validation images for the accuracy after each epoch


class SupernetSearch:
    """The search, a :class:`~automl_ext.training.epochs.Job`.

    One half of the training images is used to train the weights, the other half to train α.

    Args:
        sample: chooses the operations that a forward pass runs.

    Raises:
        UserError: the space has no supernet.
    """

    def __init__(
        self, config: SupernetConfig, space: Space[Any], splits: Splits, device: torch.device, sample: Sampler
    ) -> None:
        self.sample = sample
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.rng = generator(config.seed, torch.device("cpu"))
        order = torch.randperm(len(splits.train.labels), generator=self.rng)
        train = to_device(splits.train, device)
        self.weight_images, self.alpha_images = (take(train, half) for half in order.tensor_split(2))
        check_batches(config.batch_size, len(self.alpha_images.labels))
        self.valid = to_device(take(splits.valid, torch.arange(min(VALID_IMAGES, len(splits.valid.labels)))), device)
        self.class_weights = class_weights(config.class_weights, train.labels, splits.num_classes)
        seed_everything(config.seed)
        shape = network_shape(splits, config.channels, config.cells)
        self.supernet = build_supernet(space, shape, config).to(device)
        self.allowed = None if config.none else without_none(self.supernet)
        if config.stop_skip is not None:
            check_names(self.supernet, "--stop-skip")
        self.weight_optimizer = nesterov_sgd(self.supernet.weights(), config.lr, config.momentum, config.weight_decay)
        self.alpha_optimizer = torch.optim.Adam(
            [*self.supernet.alphas, *self.supernet.betas],
            lr=config.alpha_lr,
            betas=(config.alpha_beta1, config.alpha_beta2),
            weight_decay=config.alpha_weight_decay,
        )

    def run_epoch(self) -> dict[str, float]:
        """Run one epoch of alternating steps.

        Returns:
            The mean losses, the temperature, the mean number of operations run per edge (``support``), and
            :func:`~automl_ext.nas.differentiable.collapse.alpha_scalars`. No ``alpha_loss`` during the warm-up.
            ``supernet_accuracy`` is that of the architecture derived from α with the shared weights, on validation
            images and with their batch statistics.
        """
        config = self.config
        with self.clock:
            self.supernet.train()
            tau = config.tau(self.epoch)
            weight_batches = epoch_batches(len(self.weight_images.labels), config.batch_size, self.rng)
            alpha_batches = epoch_batches(len(self.alpha_images.labels), config.batch_size, self.rng)
            steps = min(len(weight_batches), len(alpha_batches))
            losses: list[Tensor] = []
            alpha_losses: list[Tensor] = []
            self.support: list[int] = []
            for i in range(steps):
                progress = (self.epoch + i / steps) / self.epochs
                set_cosine_lr(self.weight_optimizer, progress, config.lr, config.lr_min)
                warm = self.epoch < config.warmup * config.epochs
                batch = self.batch(self.weight_images, weight_batches[i])
                losses.append(self.weight_step(batch, tau, fair=warm and config.fair_warmup))
                if not warm:
                    batch = self.batch(self.alpha_images, alpha_batches[i])
                    alpha_losses.append(self.alpha_step(batch, tau))
            self.epoch += 1
        means = {"loss": losses, "alpha_loss": alpha_losses}
        scalars = {name: ranks.add_up(torch.stack(values).mean()).item() for name, values in means.items() if values}
        derived = derived_choices(self.supernet, self.strengths())
        scalars["supernet_accuracy"] = batch_accuracy(
            self.supernet, self.valid.images, self.valid.labels, normalize_edges(derived, self.supernet)
        )
        scalars |= {"tau": tau, "support": sum(self.support) / len(self.support)}
        if config.stop_skip is not None:
            scalars["derived_skip"] = skip_share(derived, self.supernet.operations)
            if alpha_losses and scalars["derived_skip"] >= config.stop_skip:
                self.epochs = self.epoch
        return scalars | alpha_scalars(masked(self.supernet.alphas, self.allowed), self.supernet.operations)

    def weight_step(self, batch: Split, tau: float, fair: bool) -> Tensor:
        """Take one step on the weights. Return the loss."""
        optimizer, clip = self.weight_optimizer, self.config.grad_clip
        if not fair:
            return weight_step(self.supernet, optimizer, batch, tau, clip, self.rng, self.draw, self.class_weights)
        with torch.no_grad():
            cycle = fair_cycle(self.allowed or all_candidates(self.supernet), self.rng)
            cycle = [self.record(normalize_edges(choices, self.supernet)) for choices in cycle]
        return supernet_step(self.supernet, optimizer, batch, clip, cycle, self.class_weights)

    def alpha_step(self, batch: Split, tau: float) -> Tensor:
        """Take one step on α. Return the loss."""
        common = self.rng, self.draw, self.class_weights, self.penalty()
        return alpha_step(self.supernet, self.alpha_optimizer, batch, tau, *common)

    def penalty(self) -> Tensor | None:
        """Return the term to add to the loss of α; None: none."""
        weight = beta_weight(self.epoch, self.config.epochs, self.config.beta_decay)
        return weight * beta_loss(masked(self.supernet.alphas, self.allowed)) if self.config.beta_decay else None

    def draw(self, alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
        """Choose the operations that a step runs, and record their number on each edge."""
        return self.record(self.choices(masked(alphas, self.allowed), tau, rng))

    def choices(self, alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
        """Choose the operations that a pass runs, given α in which −inf masks an operation."""
        return normalize_edges(self.sample(alphas, tau, rng), self.supernet)

    def record(self, choices: list[Choice]) -> list[Choice]:
        self.support += [len(active) for choice in choices for active in choice.active]
        return choices

    def strengths(self) -> list[Tensor]:
        """Return the α from which the architecture is derived."""
        alphas = masked([alpha.detach() for alpha in self.supernet.alphas], self.allowed)
        return with_edge_strengths(self.supernet, alphas)

    def batch(self, images: Split, index: Tensor) -> Split:
        """Return the augmented images at ``index`` and their labels."""
        batch = take(images, index)
        shifted = augment(batch.images, self.config.shift, self.config.flip, self.rng)
        return Split(shifted, batch.labels)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "stopped": self.epochs < self.config.epochs,  # skip connections ended the search
            "supernet": dict(self.supernet.state_dict()),  # includes α and β
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.epochs = self.epoch if state.get("stopped", False) else self.config.epochs  # absent in older versions
        self.supernet.load_state_dict(state["supernet"])
        load_optimizer(self.weight_optimizer, state["weight_optimizer"])
        load_optimizer(self.alpha_optimizer, state["alpha_optimizer"])
        self.rng.set_state(state["rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def build_supernet(space: Space[Any], shape: dict[str, int], config: SupernetConfig) -> Supernet:
    """Build the supernet of a space, with partial channels and edge normalization if ``config`` asks for them.

    Args:
        shape: in_channels, num_classes, channels and cells.

    Raises:
        UserError: the space has no supernet, none with partial channels, or one that cannot derive.
    """
    partial = {} if config.partial_channels == 1 else {"partial_channels": config.partial_channels}
    if partial and "partial_channels" not in inspect.signature(space.build_supernet).parameters:
        raise UserError(
            f"--partial-channels: {type(space).__name__}.build_supernet does not have the argument partial_channels"
        )
    supernet = supernet_of(space, **shape, form=config.supernet_form(), **partial)
    if type(supernet).derive is Supernet.derive:  # otherwise found after the last epoch
        raise UserError(f"{type(supernet).__name__}: expected a method derive, which returns a genotype")
    if partial and not supernet.nodes:
        raise UserError(
            f"--partial-channels: {type(supernet).__name__}.nodes: expected the edges into each node, got ()"
        )
    if partial:
        supernet.add_betas()
    return supernet


def normalize_edges(choices: list[Choice], supernet: Supernet) -> list[Choice]:
    """Add the weights of the edges to the choices, if the supernet has parameters for them."""
    if not supernet.betas:
        return choices
    return [
        choice._replace(edges=edge_weights(beta, supernet.nodes))
        for choice, beta in zip(choices, supernet.betas, strict=True)
    ]
