"""A search over a supernet as a job of epochs: alternating steps of the weights and of α.

The algorithms differ in their sampler and options only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.images import Split, Splits
from automl_ext.nas.differentiable.candidates import masked, without_none
from automl_ext.nas.differentiable.collapse import alpha_scalars
from automl_ext.nas.differentiable.config import AlphaConfig, SupernetConfig
from automl_ext.nas.differentiable.deriving import derived_choices
from automl_ext.nas.differentiable.steps import Sampler, alpha_step, weight_step
from automl_ext.nas.retraining.batch_loss import check_batches
from automl_ext.nas.retraining.class_weights import class_weights
from automl_ext.nas.retraining.images import augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.optimizer import nesterov_sgd
from automl_ext.nas.retraining.training import network_shape
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

    One half of the training images is used to train the weights, the other half to train α, or to derive by
    perturbation. α is trained if ``config`` is an AlphaConfig.

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
        self.weight_optimizer = nesterov_sgd(self.supernet.weights(), config.lr, config.momentum, config.weight_decay)
        self.alpha_optimizer: torch.optim.Adam | None = None
        if isinstance(config, AlphaConfig):
            self.alpha_optimizer = alpha_adam(self.supernet, config)
            self.warm_epochs = config.warmup * config.epochs

    def run_epoch(self) -> dict[str, float]:
        """Run one epoch of alternating steps.

        Returns:
            The mean losses, the temperature, the mean number of operations run per edge (``support``), and
            :func:`~automl_ext.nas.differentiable.collapse.alpha_scalars`. No ``alpha_loss`` while α is fixed.
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
                common = tau, self.rng, self.draw, self.class_weights
                batch = self.batch(self.weight_images, weight_batches[i])
                losses.append(weight_step(self.supernet, self.weight_optimizer, config.grad_clip, batch, *common))
                if self.alpha_optimizer is not None and self.epoch >= self.warm_epochs:
                    batch = self.batch(self.alpha_images, alpha_batches[i])
                    alpha_losses.append(alpha_step(self.supernet, self.alpha_optimizer, batch, *common))
            self.epoch += 1
        means = {"loss": losses, "alpha_loss": alpha_losses}
        scalars = {name: ranks.add_up(torch.stack(values).mean()).item() for name, values in means.items() if values}
        alphas = self.alphas()
        scalars["supernet_accuracy"] = batch_accuracy(
            self.supernet, self.valid.images, self.valid.labels, derived_choices(self.supernet, alphas)
        )
        scalars |= {"tau": tau, "support": sum(self.support) / len(self.support)}
        return scalars | alpha_scalars(alphas, self.supernet.operations)

    def draw(self, alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
        """Choose the operations that a step runs, and record their number on each edge."""
        choices = self.sample(masked(alphas, self.allowed), tau, rng)
        self.support += [len(active) for choice in choices for active in choice.active]
        return choices

    def alphas(self) -> list[Tensor]:
        """Return α, −inf for operations that are no candidates."""
        return masked([alpha.detach() for alpha in self.supernet.alphas], self.allowed)

    def batch(self, images: Split, index: Tensor) -> Split:
        """Return the augmented images at ``index`` and their labels."""
        batch = take(images, index)
        shifted = augment(batch.images, self.config.shift, self.config.flip, self.rng)
        return Split(shifted, batch.labels)

    def state_dict(self) -> dict[str, Any]:
        state = {
            "epoch": self.epoch,
            "supernet": dict(self.supernet.state_dict()),  # includes α
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }
        if self.alpha_optimizer is not None:
            state["alpha_optimizer"] = self.alpha_optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        load_optimizer(self.weight_optimizer, state["weight_optimizer"])
        if self.alpha_optimizer is not None:
            load_optimizer(self.alpha_optimizer, state["alpha_optimizer"])
        self.rng.set_state(state["rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def alpha_adam(supernet: Supernet, config: AlphaConfig) -> torch.optim.Adam:
    """Make the optimizer of α."""
    betas = config.alpha_beta1, config.alpha_beta2
    return torch.optim.Adam(
        supernet.alphas.parameters(), lr=config.alpha_lr, betas=betas, weight_decay=config.alpha_weight_decay
    )


def build_supernet(space: Space[Any], shape: dict[str, int], config: SupernetConfig) -> Supernet:
    """Build the supernet of a space.

    Args:
        shape: in_channels, num_classes, channels and cells.

    Raises:
        UserError: the space has no supernet, or one that cannot derive.
    """
    supernet = supernet_of(space, **shape, form=config.supernet_form())
    if type(supernet).derive is Supernet.derive:  # otherwise found after the last epoch
        raise UserError(f"{type(supernet).__name__}: expected a method derive, which returns a genotype")
    return supernet
