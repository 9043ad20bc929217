"""Training a network from scratch: its configuration, the training job, and the measurement of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.data.pixels import check_mode, parse_size
from automl_ext.nas.costs import count_macs
from automl_ext.nas.retraining.batch_loss import batch_loss, check_batches
from automl_ext.nas.retraining.class_report import class_report, confusion_matrix
from automl_ext.nas.retraining.class_weights import ClassWeights, check_class_weights, class_weights
from automl_ext.nas.retraining.images import accuracy, augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.optimizer import nesterov_sgd
from automl_ext.nas.retraining.regularization import DropPath, add_auxiliary_head, cutout
from automl_ext.nas.retraining.synced_norm import synced_norms
from automl_ext.nas.spaces.space import Space
from automl_ext.training import ranks
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.clock import Clock
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.search_space import Range
from automl_ext.training.seeding import generator, seed_everything

LARGEST = 2**31 - 1  # largest count: PyTorch and NumPy cannot convert larger values
MANY = 1_000_000  # largest number of networks, genotypes or rounds that an option may set


@dataclass
class TrainingConfig:
    """Options of the training of a network: SGD with Nesterov momentum and a cosine learning rate."""

    space: str = "nb201"  # Search space: nb201, darts, darts-frc (its reduction cell is fixed), renas or MODULE:CLASS.
    data: str = "digits"  # Data set: digits, fashion-mnist:PATH, cifar10:PATH, cifar100:PATH, folder:PATH or npz:PATH.
    subset: int | None = None  # Number of images to use; all by default.
    image_size: str | None = None  # N or HxW: resize all images to this size. Default: they must have equal sizes.
    image_mode: str = "auto"  # Color mode: rgb, gray, or auto (RGB if any image has color).
    seed: int = 0  # Seed of the weights, batches and augmentation.
    device: str = "auto"  # Device: auto, cpu or cuda.
    channels: int = 16  # Number of channels C of the first stage; later stages have 2C and 4C.
    cells: int = 1  # Number of cells N per stage, all with the same genotype.
    epochs: int = 40  # Number of training epochs.
    batch_size: Annotated[int, Range(16, 256, log=True)] = 64  # Number of images per batch.
    lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.05
    """Initial learning rate of SGD; the cosine schedule ends at 0."""
    momentum: Annotated[float, Range(0.5, 0.99)] = 0.9  # Nesterov momentum of SGD.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 5e-4  # Weight decay of SGD.
    shift: Annotated[int, Range(0, 4)] = 1  # Largest random shift of a training image, in pixels.
    flip: bool = False  # Mirror each training image with probability 1/2.
    cutout: int = 0  # Side of a square set to zero in each training image, in pixels (DARTS: 16).
    drop_path: float = 0.0  # Drop-path probability; rises linearly from 0 to about this value (DARTS: 0.2).
    auxiliary: float = 0.0  # Weight of the auxiliary classifier's loss; 0 for no auxiliary head (DARTS: 0.4).
    class_weights: ClassWeights = None  # Weights of the classes in the loss: balanced, or one number per class.

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "subset", "channels", "cells", "epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)  # batch norm needs two images
        check_range(self, "shift", "cutout", low=0, high=LARGEST)
        check_range(self, "lr", above=0)
        check_range(self, "momentum", "drop_path", low=0, below=1)
        check_range(self, "weight_decay", "auxiliary", low=0)
        parse_size(self.image_size)
        check_mode(self.image_mode)
        check_class_weights(self.class_weights)


class NetworkTraining:
    """The training of one network, a :class:`~automl_ext.training.epochs.Job`.

    All randomness comes from ``config.seed``. The network is trained on the training and validation images of
    ``splits`` together.

    Args:
        genotype: the architecture, of ``space``.
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
            add_auxiliary_head(network)
        self.network = network.to(device)
        self.optimizer = nesterov_sgd(self.network.parameters(), config.lr, config.momentum, config.weight_decay)
        self.generator = generator(config.seed, torch.device("cpu"))
        self.drop_path = DropPath(self.network, self.generator) if config.drop_path else None

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch.

        Returns:
            ``loss``, the mean; ``lr``, the last learning rate; ``train_accuracy``, on the augmented batches, each
            before its step; and, if images are held out, ``valid_accuracy``, on these images after the epoch.
        """
        with self.clock:
            self.network.train()
            batches = epoch_batches(len(self.split.labels), self.config.batch_size, self.generator)
            if self.drop_path is not None:
                self.drop_path.probability = self.config.drop_path * self.epoch / self.epochs
                self.drop_path.images = len(batches[0])
            losses, correct = [], []
            for i, index in enumerate(batches):
                progress = (self.epoch + i / len(batches)) / self.epochs
                lr = set_cosine_lr(self.optimizer, progress, self.config.lr, 0.0)
                batch = take(self.split, index)
                images = augment(batch.images, self.config.shift, self.config.flip, self.generator)
                images = cutout(images, self.config.cutout, self.generator)
                own = ranks.part(len(index))
                loss, logits = self.loss_and_logits(images[own], batch.labels)
                self.optimizer.zero_grad()
                loss.backward()
                ranks.add_up_gradients(self.network.parameters())
                self.optimizer.step()
                losses.append(loss.detach())
                right = (logits.detach().argmax(-1) == batch.labels[own]).float().mean()
                correct.append(right * (len(logits) / len(index)))
            self.epoch += 1
        scalars = {"loss": ranks.add_up(torch.stack(losses).mean()).item(), "lr": lr}
        scalars["train_accuracy"] = ranks.add_up(torch.stack(correct).mean()).item()
        if self.held_out is not None:
            scalars["valid_accuracy"] = accuracy(self.network, self.held_out)
        return scalars

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the cross-entropy of a batch, plus the weighted loss of the auxiliary head if there is one.

        Args:
            images: this rank's part of the batch; with one rank, the batch.
            labels: of the whole batch.

        Returns:
            This rank's part of the loss.
        """
        return self.loss_and_logits(images, labels)[0]

    def loss_and_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute :meth:`loss`, and return the logits too."""
        weight = self.class_weights
        with synced_norms():
            output = self.network(images)
        logits, auxiliary = output if self.config.auxiliary else (output, None)
        self.check(logits, images)
        loss = batch_loss(logits, labels, weight)
        if auxiliary is not None:
            loss = loss + self.config.auxiliary * batch_loss(auxiliary, labels, weight)
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
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def network_shape(splits: Splits, channels: int, cells: int) -> dict[str, Any]:
    """Return the keyword arguments of ``Space.build`` for the images of ``splits``."""
    return {
        "in_channels": splits.in_channels,
        "num_classes": splits.num_classes,
        "channels": channels,
        "cells": cells,
    }


def train_and_valid(splits: Splits) -> Split:
    """Concatenate the training and validation images, which a final training uses together."""
    parts = (splits.train, splits.valid)
    return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))


def count_parameters(network: nn.Module) -> int:
    """Count the parameters of a network, without those of an auxiliary head, which only training uses."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary."))


def measure(training: NetworkTraining, genotype: Any, splits: Splits) -> dict[str, Any]:
    """Return the result of a finished training. No other function reads the test images.

    The key ``times`` holds everything that is not reproducible. The first entries are those of
    :func:`~automl_ext.nas.retraining.class_report.class_report`.
    """
    labels = training.split.labels
    counts = confusion_matrix(training.network, to_device(splits.test, labels.device), splits.num_classes)
    return {
        "genotype": str(genotype),
        **class_report(counts, labels.cpu(), splits.classes),
        "parameters": count_parameters(training.network),
        "macs": count_macs(training.network, (splits.in_channels, *splits.image_size)),
        "network": network_facts(training.config, splits),
        "times": {"retrain_seconds": training.clock.wall, "retrain_cpu_seconds": training.clock.cpu},
    }


def network_facts(config: TrainingConfig, splits: Splits) -> dict[str, Any]:
    """Return the facts from which a trained network can be built again: the entry ``network`` of a result."""
    return {
        "space": config.space,
        "shape": network_shape(splits, config.channels, config.cells),
        "image_size": list(splits.image_size),
        "mean": list(splits.mean),
        "std": list(splits.std),
        "classes": list(splits.classes),
    }
