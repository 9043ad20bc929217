"""The loop of the searches over a supernet: data, epochs, measurements and saved state.

An algorithm (:class:`SupernetAlgorithm`) takes the steps. The loop does not depend on how the gradient of α is
estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from automl_ext.data.images import Split, Splits
from automl_ext.nas.data import network_shape
from automl_ext.nas.spaces.space import Space, supernet_of
from automl_ext.nas.spaces.supernet import Choice, Supernet, batch_accuracy
from automl_ext.nas.supernets.candidates import derived_choices, masked, without_none
from automl_ext.nas.supernets.supernet_options import AlphaConfig, SupernetConfig
from automl_ext.nas.training.batches import augment, check_batches, epoch_batches, take, to_device
from automl_ext.nas.training.sgd import sgd
from automl_ext.nas.training.training_options import class_weights
from automl_ext.training import ranks
from automl_ext.training.errors import UserError
from automl_ext.training.machine.clock import Clock
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import generator, rng_state, seed_everything, set_rng_state

Config = TypeVar("Config", bound=SupernetConfig)
AnyAlphaConfig = TypeVar("AnyAlphaConfig", bound=AlphaConfig)
VALID_IMAGES = 500  # largest number of validation images for the accuracy after each epoch
WATCHED = {"skip": "skip_connect", "none": "none"}  # name in a metric → operation


class Iteration(NamedTuple):
    """The measurements of one iteration of an algorithm.

    Attributes:
        loss: the loss of the training batch, 0-dim, detached.
        choices: the operations that ran, one choice per kind of cell and forward pass.
        alpha_loss: the loss of the validation batch, 0-dim, detached; None if α was fixed.
        tau: the temperature; 1 if the algorithm has none.
    """

    loss: Tensor
    choices: list[Choice]
    alpha_loss: Tensor | None = None
    tau: float = 1.0


class SupernetAlgorithm(Generic[Config]):
    """Base class of the algorithms: the optimizer of the weights, and the loss.

    Args:
        allowed: masks of the candidate operations in the shapes of α; None: all are candidates.
        class_weights: weights in the loss [classes]; None: 1.
        rng: source of the samples.

    Attributes:
        network: the supernet; its gradients are the means over all processes.
        optimizers: name in the saved state → optimizer.
    """

    def __init__(
        self,
        config: Config,
        supernet: Supernet,
        allowed: Sequence[Tensor] | None,
        class_weights: Tensor | None,
        rng: torch.Generator,
    ) -> None:
        self.config, self.supernet, self.allowed = config, supernet, allowed
        self.network = ranks.data_parallel(supernet)
        self.class_weights, self.rng = class_weights, rng
        self.weight_optimizer = sgd(supernet.weights(), config.lr, config.momentum, config.weight_decay)
        self.optimizers: dict[str, Optimizer] = {"weight_optimizer": self.weight_optimizer}

    def iterate(self, epoch: int, progress: float, train: Iterator[Split], valid: Iterator[Split]) -> Iteration:
        """Run one iteration.

        Args:
            epoch: the number of completed epochs.
            progress: the completed fraction of the search, 0 to 1.
            train: augmented batches of the images for the weights. With several processes, each gets its part of every
                batch.
            valid: augmented batches of the images for α.
        """
        raise NotImplementedError

    def alphas(self) -> list[Tensor]:
        """Return α, −inf for operations that are not candidates."""
        return masked(self.supernet.alphas, self.allowed)

    def loss(self, batch: Split, choices: list[Choice]) -> Tensor:
        """Compute the mean loss of a batch, 0-dim, of the network with these choices."""
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            logits = self.network(batch.images, *choices)
        return F.cross_entropy(logits.float(), batch.labels, self.class_weights)


class AlphaAlgorithm(SupernetAlgorithm[AnyAlphaConfig]):
    """An algorithm that trains α by Adam. The arguments are those of :class:`SupernetAlgorithm`."""

    def __init__(self, config: AnyAlphaConfig, *arguments: Any) -> None:
        super().__init__(config, *arguments)
        betas, decay = (config.alpha_beta1, config.alpha_beta2), config.alpha_weight_decay
        self.alpha_optimizer = torch.optim.Adam(
            self.supernet.alphas.parameters(), lr=config.alpha_lr, betas=betas, weight_decay=decay
        )
        self.optimizers["alpha_optimizer"] = self.alpha_optimizer


class SupernetSearch:
    """A search over a supernet, a :class:`~automl_ext.training.epochs.Job`.

    One half of the training images is used to train the weights, the other half to train α, or to derive by
    perturbation.

    Raises:
        UserError: the space has no supernet.
    """

    def __init__(self, config: SupernetConfig, space: Space[Any], splits: Splits, device: torch.device) -> None:
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.rng = generator(config.seed, torch.device("cpu"))
        order = torch.randperm(len(splits.train.labels), generator=self.rng)
        train = to_device(splits.train, device)
        self.weight_images, self.alpha_images = (take(train, half) for half in order.tensor_split(2))
        check_batches(config.batch_size, len(self.alpha_images.labels))
        self.valid = to_device(take(splits.valid, torch.arange(min(VALID_IMAGES, len(splits.valid.labels)))), device)
        self.class_weights = class_weights(config.class_weights, train.labels, splits.num_classes)
        seed_everything(config.seed)
        self.supernet = build_supernet(space, network_shape(splits, config.channels, config.cells), config).to(device)
        self.allowed = None if config.none else without_none(self.supernet)
        self.algorithm: SupernetAlgorithm[Any] = config.algorithm(
            self.supernet, self.allowed, self.class_weights, self.rng
        )

    def run_epoch(self) -> dict[str, float]:
        """Run one epoch of iterations.

        Returns:
            The mean losses, the temperature, the mean number of operations run per edge (``support``), and
            :func:`alpha_scalars`. No ``alpha_loss`` while α is fixed. ``supernet_accuracy`` is that of the architecture
            derived from α with the shared weights, on validation images and with their batch statistics.
        """
        with self.clock:
            self.supernet.train()
            size = self.config.batch_size
            orders = [epoch_batches(len(i.labels), size, self.rng) for i in (self.weight_images, self.alpha_images)]
            train, valid = self.batches(self.weight_images, orders[0]), self.batches(self.alpha_images, orders[1])
            steps = min(map(len, orders))
            done = [
                self.algorithm.iterate(self.epoch, (self.epoch + i / steps) / self.epochs, train, valid)
                for i in range(steps)
            ]
            self.epoch += 1
        scalars = {"loss": _mean([iteration.loss for iteration in done])}
        if alpha_losses := [iteration.alpha_loss for iteration in done if iteration.alpha_loss is not None]:
            scalars["alpha_loss"] = _mean(alpha_losses)
        alphas = self.alphas()
        scalars["supernet_accuracy"] = batch_accuracy(
            self.supernet, self.valid.images, self.valid.labels, derived_choices(self.supernet, alphas)
        )
        ran = [len(edge) for iteration in done for choice in iteration.choices for edge in choice.active]
        scalars |= {"tau": done[-1].tau, "support": sum(ran) / len(ran)}
        return scalars | alpha_scalars(alphas, self.supernet.operations)

    def alphas(self) -> list[Tensor]:
        """Return α, −inf for operations that are not candidates."""
        return masked([alpha.detach() for alpha in self.supernet.alphas], self.allowed)

    def batches(self, split: Split, order: Iterable[Tensor]) -> Iterator[Split]:
        """Yield this process's part of each batch: images, augmented when they are taken, and labels.

        All processes draw the random numbers of whole batches, so their generators stay equal.
        """
        for index in order:
            batch = take(split, index)
            images = augment(batch.images, self.config.shift, self.config.flip, self.rng)
            own = ranks.part(len(index))
            yield Split(images[own], batch.labels[own])

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": dict(self.supernet.state_dict()),  # includes α
            "rng": self.rng.get_state(),
            "global_rng": rng_state(),  # layers of a supernet may draw from it, such as dropout
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
            **{name: optimizer.state_dict() for name, optimizer in self.algorithm.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        for name, optimizer in self.algorithm.optimizers.items():
            load_optimizer(optimizer, state[name])
        self.rng.set_state(state["rng"])
        set_rng_state(state["global_rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def _mean(losses: list[Tensor]) -> float:
    return ranks.mean(torch.stack(losses).mean()).item()


def build_supernet(space: Space[Any], shape: dict[str, int], config: SupernetConfig) -> Supernet:
    """Build the supernet of a space.

    Raises:
        UserError: the space has no supernet, or one that cannot derive.
    """
    supernet = supernet_of(space, **shape, form=config.supernet_form())
    if type(supernet).derive is Supernet.derive:  # otherwise found after the last epoch
        raise UserError(f"{type(supernet).__name__}: expected a method derive, which returns a genotype")
    return supernet


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Disable the gradients of the parameters within the context, and enable them again for those that had them."""
    parameters = [p for p in parameters if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@torch.no_grad()
def alpha_scalars(alphas: Sequence[Tensor], operations: Sequence[str]) -> dict[str, float]:
    """Compute metrics of α, each a mean over all edges of all kinds of cells.

    The shares of skip connections and "none" show a collapse, the known failure of differentiable searches (Zela et
    al., ICLR 2020). Operations without weights need no training, so α comes to prefer them, and the derived cell
    computes almost nothing.

    Args:
        alphas: α of each kind of cell, [edges, len(operations)]; −inf masks an operation.
        operations: names of the operations. Metrics of an operation that is missing here are omitted.

    Returns:
        alpha_entropy: the entropy of softmax(α), in nats.
        share_skip, share_none: the share of edges on which the operation has the largest α.
        prob_skip, prob_none: the operation's mean probability softmax(α).
    """
    log_p = torch.log_softmax(torch.cat([alpha.detach() for alpha in alphas]), -1)
    largest = torch.cat([alpha.detach() for alpha in alphas]).argmax(-1)
    terms = (log_p.exp() * log_p).masked_fill(log_p == -torch.inf, 0)  # 0·log 0 is 0
    scalars = {"alpha_entropy": -terms.sum(-1).mean().item()}
    for short, name in WATCHED.items():
        if name in operations:
            k = list(operations).index(name)
            scalars[f"share_{short}"] = (largest == k).float().mean().item()
            scalars[f"prob_{short}"] = log_p[:, k].exp().mean().item()
    return scalars
