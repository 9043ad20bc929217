"""Training a network from scratch, a job of epochs, with the regularization of DARTS: drop-path, auxiliary head."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.data import network_shape
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.batches import (
    accuracy,
    augment,
    check_batches,
    cutmix,
    cutout,
    epoch_batches,
    mixed_cross_entropy,
    take,
    to_device,
    train_and_valid,
)
from automl_ext.nas.training.sgd import sgd
from automl_ext.nas.training.training_options import TrainingConfig, class_weights
from automl_ext.training import ranks
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.clock import Clock
from automl_ext.training.machine.device import send
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import generator, rng_state, seed_everything, set_rng_state


class NetworkTraining:
    """The training of one network, a :class:`~automl_ext.training.epochs.Job`.

    All randomness comes from ``config.seed``; networks with dropout draw from the global generators. The network is
    trained on the training and validation images of ``splits`` together.

    Args:
        genotype: the architecture, a genotype of ``space``.
        held_out: images on which the accuracy is measured after each epoch; none by default.

    Raises:
        UserError: ``config`` asks for an auxiliary head or drop-path, which networks of the space do not support; or a
            network has no parameters, or its output is not [N, number of classes].
    """

    def __init__(
        self,
        config: TrainingConfig,
        space: Space[Any],
        genotype: Any,
        splits: Splits,
        device: torch.device,
        held_out: Split | None = None,
    ) -> None:
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.split = to_device(train_and_valid(splits), device)
        check_batches(config.batch_size, len(self.split.labels))
        self.held_out = None if held_out is None else to_device(held_out, device)
        self.class_weights = class_weights(config.class_weights, self.split.labels, splits.num_classes)
        seed_everything(config.seed)
        network = space.build(genotype, **network_shape(splits, config.channels, config.cells))
        self.where = f"{type(space).__name__}.build({short(genotype)})"
        if next(network.parameters(), None) is None:
            raise UserError(f"{self.where}: expected a network with parameters")
        self.num_classes = splits.num_classes
        if config.auxiliary:
            if not hasattr(network, "add_auxiliary_head"):
                raise UserError("--auxiliary: networks of this space have no auxiliary head")
            network.add_auxiliary_head()  # type: ignore[operator]
        self.network = network.to(device)
        self.trained = ranks.data_parallel(self.network)  # its gradients are the means over all processes
        self.optimizer = sgd(self.network.parameters(), config.lr, config.momentum, config.weight_decay)
        self.generator = generator(config.seed, torch.device("cpu"))
        self.drop_path = DropPath(self.network, self.generator) if config.drop_path else None

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch.

        Returns:
            ``loss``, the mean over the batches; ``lr``, the last learning rate; ``train_accuracy``, measured on each
            augmented batch before its step; and, if images are held out, ``valid_accuracy`` on them after the epoch.
        """
        with self.clock:
            self.network.train()
            batches = epoch_batches(len(self.split.labels), self.config.batch_size, self.generator)
            if self.drop_path is not None:
                self.drop_path.probability = self.config.drop_path * self.epoch / self.epochs
            losses, correct = [], []
            for i, index in enumerate(batches):
                progress = (self.epoch + i / len(batches)) / self.epochs
                lr = set_cosine_lr(self.optimizer, progress, self.config.lr, 0.0)
                batch = take(self.split, index)
                images = augment(batch.images, self.config.shift, self.config.flip, self.generator)
                images = cutout(images, self.config.cutout, self.generator)
                images, others, share = cutmix(images, batch.labels, self.config.cutmix, self.generator)
                own = ranks.part(len(index))
                if self.drop_path is not None:
                    self.drop_path.draw(len(index), own, images.device)
                labels = batch.labels[own]
                loss, logits = self.loss_and_logits(images[own], labels, others[own], share)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.detach())
                correct.append((logits.detach().argmax(-1) == labels).float().mean())
            self.epoch += 1
        scalars = {"loss": ranks.mean(torch.stack(losses).mean()).item(), "lr": lr}
        scalars["train_accuracy"] = ranks.mean(torch.stack(correct).mean()).item()
        if self.held_out is not None:
            scalars["valid_accuracy"] = accuracy(self.network, self.held_out)
        return scalars

    def loss_and_logits(self, images: Tensor, labels: Tensor, others: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Compute the loss and the logits of a batch of :func:`~automl_ext.nas.training.batches.cutmix`.

        The loss is the cross-entropy, plus the weighted one of the auxiliary head if there is one.
        """
        mixed = others, share, self.class_weights
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            output = self.trained(images)
        logits, auxiliary = output if self.config.auxiliary else (output, None)
        self.check(logits, images)
        loss = mixed_cross_entropy(logits.float(), labels, *mixed)
        if auxiliary is not None:
            loss = loss + self.config.auxiliary * mixed_cross_entropy(auxiliary.float(), labels, *mixed)
        return loss, logits

    def check(self, logits: Any, images: Tensor) -> None:
        """Raise UserError unless the output of the network has one number per image and class."""
        expected, got = (len(images), self.num_classes), getattr(logits, "shape", type(logits).__name__)
        if got != expected:
            got = got if isinstance(got, str) else f"shape {tuple(got)}"
            raise UserError(f"{self.where}: expected a network whose output has shape {expected}, got {got}")

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "network": dict(self.network.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "rng": rng_state(),  # a network may draw from it
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])
        if "rng" in state:  # runs of earlier versions have none; only networks with dropout need it
            set_rng_state(state["rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


class DropPath:
    """Drop-path: set outputs of operations to zero per image, with a probability (Larsson et al., ICLR 2017).

    The outputs that remain are scaled by 1/(1 − probability), as in NASNet and DARTS. Forward hooks on the operations
    of ``network.paths()`` do this, so the network's structure, state and export do not change.

    Args:
        generator: a generator on the CPU, so that a seed drops the same outputs on every device.

    Attributes:
        operations: those whose outputs are dropped.
        probability: the present drop probability, initially 0.
        factors: factors of the outputs, [operations, images]; None: nothing is dropped.

    Raises:
        UserError: the network has no method ``paths``.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        if not hasattr(network, "paths"):
            raise UserError("--drop-path: networks of this space have no method paths, so drop-path is not supported")
        self.generator, self.probability, self.factors = generator, 0.0, cast(Tensor | None, None)
        self.operations: list[nn.Module] = list(network.paths())  # type: ignore[operator]
        for number, operation in enumerate(self.operations):
            operation.register_forward_hook(partial(self._drop, number))

    def draw(self, images: int, own: slice, device: torch.device) -> None:
        """Draw which outputs the next step drops, for a batch of ``images``; keep this process's part, ``own``."""
        self.factors = None
        if self.probability:
            keep = 1 - self.probability
            kept = torch.rand(len(self.operations), images, generator=self.generator) < keep
            (self.factors,) = send([kept[:, own] / keep], device)

    def _drop(self, number: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not module.training or self.factors is None:
            return output
        return output * self.factors[number].to(output.dtype)[:, None, None, None]
