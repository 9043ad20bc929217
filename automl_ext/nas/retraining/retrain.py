"""Training an architecture from scratch, and comparing it with uniformly drawn ones trained the same way."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits, load_images, split_images
from automl_ext.nas.retraining.images import accuracy, augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.regularization import DropPath, add_auxiliary_head, cutout
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.clock import Clock
from automl_ext.training.device import choose_device
from automl_ext.training.epochs import Epochs, set_cosine_lr
from automl_ext.training.errors import UserError
from automl_ext.training.run import Run
from automl_ext.training.seeding import generator, seed_everything

LARGEST = 2**31 - 1  # of a count; beyond it, conversions to the types of PyTorch and NumPy fail
MANY = 1_000_000  # of what is made or drawn one by one before anything runs


@dataclass
class TrainingConfig:
    """How a network is built and trained: SGD with Nesterov momentum and a cosine learning rate."""

    space: str = "nb201"  # nb201, darts, darts-frc (with GDAS's fixed reduction cell) or renas
    data: str = "digits"  # digits, fashion-mnist:PATH, folder:PATH or npz:PATH
    subset: int | None = None  # use so many images only
    seed: int = 0  # decides weights, batches and augmentation
    device: str = "auto"  # auto, cpu or cuda
    channels: int = 16  # C, of the first stage
    cells: int = 1  # N, per stage
    epochs: int = 40
    batch_size: int = 64
    lr: float = 0.05  # at the start; the cosine ends at 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 1  # move training images by up to so many pixels
    flip: bool = False  # mirror half of the training images
    cutout: int = 0  # zero a square of so many pixels in every training image (DARTS: 16)
    drop_path: float = 0.0  # drop operations, in the last epoch with nearly this probability (DARTS: 0.2)
    auxiliary: float = 0.0  # weight of a second classifier's loss, where the space has one (DARTS: 0.4)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "subset", "channels", "cells", "epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)  # batch norm needs two images
        check_range(self, "shift", "cutout", low=0, high=LARGEST)
        check_range(self, "lr", above=0)
        check_range(self, "momentum", "drop_path", low=0, below=1)
        check_range(self, "weight_decay", "auxiliary", low=0)


@dataclass
class RetrainConfig(TrainingConfig):
    """Train one architecture on the training and validation images; test it once."""

    genotype: str = ""  # e.g. |nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|


@dataclass
class CompareConfig(TrainingConfig):
    """Train uniformly drawn architectures, and one of your own, in the same way."""

    genotype: str | None = None  # trained first, when given
    random_cells: int = 5  # architectures to draw; the seed decides which

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "random_cells", low=1, high=MANY)


class Training:
    """One network in training, a :class:`~automl_ext.training.epochs.Job`. All randomness comes from ``config.seed``."""

    def __init__(
        self, config: TrainingConfig, space: Space[Any], genotype: Any, splits: Splits, device: torch.device
    ) -> None:
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.split = to_device(train_and_valid(splits), device)
        seed_everything(config.seed)
        network = space.build(genotype, **network_shape(splits, config.channels, config.cells))
        if config.auxiliary:
            add_auxiliary_head(network)
        self.network = network.to(device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        self.generator = generator(config.seed, torch.device("cpu"))
        self.drop_path = DropPath(self.network, self.generator) if config.drop_path else None

    def run_epoch(self) -> dict[str, float]:
        with self.clock:
            self.network.train()
            batches = epoch_batches(len(self.split.labels), self.config.batch_size, self.generator)
            if self.drop_path is not None:
                self.drop_path.probability = self.config.drop_path * self.epoch / self.epochs
            losses = []
            for i, index in enumerate(batches):
                progress = (self.epoch + i / len(batches)) / self.epochs
                lr = set_cosine_lr(self.optimizer, progress, self.config.lr, 0.0)
                batch = take(self.split, index)
                images = augment(batch.images, self.config.shift, self.config.flip, self.generator)
                images = cutout(images, self.config.cutout, self.generator)
                loss = self.loss(images, batch.labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.detach())
            self.epoch += 1
            return {"loss": torch.stack(losses).mean().item(), "lr": lr}

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        if not self.config.auxiliary:
            return F.cross_entropy(self.network(images), labels)
        logits, auxiliary = self.network(images)
        return F.cross_entropy(logits, labels) + self.config.auxiliary * F.cross_entropy(auxiliary, labels)

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
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def network_shape(splits: Splits, channels: int, cells: int) -> dict[str, Any]:
    return {
        "in_channels": splits.in_channels,
        "num_classes": splits.num_classes,
        "channels": channels,
        "cells": cells,
    }


def train_and_valid(splits: Splits) -> Split:
    """The training and the validation images together: what a final training uses."""
    parts = (splits.train, splits.valid)
    return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))


def test_accuracy(training: Training, splits: Splits) -> float:
    """Of the trained network; the one place where the test images are read."""
    device = training.split.labels.device
    return accuracy(training.network, to_device(splits.test, device))


def count_parameters(network: nn.Module) -> int:
    """Those of the trained network; an auxiliary head leaves with the training."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary."))


def parse_genotype(space: Space[Any], text: str) -> Any:
    """The genotype a user wrote.

    Raises:
        UserError: it is none of this space.
    """
    try:
        return space.parse(text)
    except ValueError as error:
        raise UserError(str(error)) from None


def retrain(
    config: RetrainConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
) -> dict[str, Any] | None:
    """Train ``config.genotype`` from scratch in the run directory ``out``; arguments as in :func:`compare`.

    Returns:
        What ``result.json`` holds: genotype, test_accuracy (0 to 1), parameters and times. None when stopped.

    Raises:
        UserError: no genotype or a bad one, bad data, configuration or run directory.
    """
    space = space or spaces.space(config.space)
    if not config.genotype:
        raise UserError("retrain: expected --genotype, the architecture to train, as result.json of a search has it")
    genotype = parse_genotype(space, config.genotype)
    splits = split_images(load_images(config.data, subset=config.subset))
    device = choose_device(config.device)
    training = Training(config, space, genotype, splits, device)  # before there is a directory: it may be refused

    def load(state: dict[str, Any]) -> None:
        training.load_state_dict(state["job"])

    with Run.open(out, config, algorithm="retrain", resume=resume, load=load) as run:
        with Epochs(run, config.epochs, "retrain", stop_after) as epochs:
            if not epochs.run(training, "retrain", {}):
                return None
        result = measure(training, genotype, splits)
        run.finish(result)
        return result


def measure(training: Training, genotype: Any, splits: Splits) -> dict[str, Any]:
    """The result of a finished training, its times apart from what is reproducible."""
    return {
        "genotype": str(genotype),
        "test_accuracy": test_accuracy(training, splits),
        "parameters": count_parameters(training.network),
        "network": {
            "space": training.config.space,
            "shape": network_shape(splits, training.config.channels, training.config.cells),
            "image_size": list(splits.image_size),
            "mean": list(splits.mean),
            "std": list(splits.std),
            "classes": list(splits.classes),
        },
        "times": {"retrain_seconds": training.clock.wall, "retrain_cpu_seconds": training.clock.cpu},
    }


def compare(
    config: CompareConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
) -> dict[str, Any] | None:
    """Train ``config.random_cells`` uniformly drawn architectures, and ``config.genotype``, exactly alike.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after so many epochs.
        space: the search space, in place of the one that ``config.space`` names.

    Returns:
        What ``result.json`` holds: ``found`` (a result as of :func:`retrain`, None without a genotype),
        ``random`` (a list of them), ``random_mean``, ``random_median`` and ``random_std`` of their test
        accuracies (standard deviation with n − 1; None for fewer than two). None when stopped. Uniform draws
        may have no way from input to output (2 % in NAS-Bench-201): the mean shows them, the median does not.

    Raises:
        UserError: bad data, genotype, configuration or run directory.
    """
    space = space or spaces.space(config.space)
    rng = Random(config.seed)
    genotypes = [space.random(rng) for _ in range(config.random_cells)]
    if config.genotype is not None:
        genotypes.insert(0, parse_genotype(space, config.genotype))
    splits = split_images(load_images(config.data, subset=config.subset))
    device = choose_device(config.device)
    training = Training(config, space, genotypes[0], splits, device)  # before there is a directory: it may be refused
    results: list[dict[str, Any]] = []

    def load(state: dict[str, Any]) -> None:
        nonlocal results, training
        results = state["results"]
        training = Training(config, space, genotypes[len(results)], splits, device)
        training.load_state_dict(state["job"])

    with Run.open(out, config, algorithm="compare", resume=resume, load=load) as run:
        first = len(results)
        with Epochs(run, len(genotypes) * config.epochs, "compare", stop_after) as epochs:
            for i in range(first, len(genotypes)):
                if i > first:
                    training = Training(config, space, genotypes[i], splits, device)
                if not epochs.run(training, f"cell{i}", {"results": results}):
                    return None
                results = [*results, measure(training, genotypes[i], splits)]
        result = summarise(results, has_found=config.genotype is not None)
        run.finish(result)
        return result


def summarise(results: list[dict[str, Any]], has_found: bool) -> dict[str, Any]:
    found, drawn = (results[0], results[1:]) if has_found else (None, results)
    accuracies = [r["test_accuracy"] for r in drawn]
    return {
        "found": found,
        "random": drawn,
        "random_median": statistics.median(accuracies),
        "random_mean": math.fsum(accuracies) / len(accuracies),
        "random_std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    }
