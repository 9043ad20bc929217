"""Weight sharing: a supernet, trained once, scores every architecture of its space with its own weights.

One-shot ranking as in Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling": every
step trains one architecture that the space draws uniformly. Batch norm statistics are computed anew for each
architecture before it is scored.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, cast

import torch
from torch import Tensor

from automl_ext.data.images import Split, Splits
from automl_ext.nas.differentiable.samplers import draw_seed
from automl_ext.nas.differentiable.steps import weight_step
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.retraining.images import accuracy, augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.optimizer import nesterov_sgd
from automl_ext.nas.retraining.training import LARGEST, network_shape
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, Supernet, recalibrate
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.clock import Clock
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.seeding import generator, seed_everything


@dataclass
class UniformSupernetConfig:
    """How the weights of a supernet are trained; numbers as in GDAS's search of the digits."""

    seed: int = 0  # decides weights, samples, batches and augmentation
    channels: int = 4  # C, of the first stage
    cells: int = 1  # N, per stage
    epochs: int = 100
    batch_size: int = 64
    lr: float = 0.1  # at the start of the cosine
    lr_min: float = 0.001  # at its end
    momentum: float = 0.9
    weight_decay: float = 5e-4
    grad_clip: float = 5.0  # largest norm of the gradient
    shift: int = 1  # move training images by up to so many pixels
    flip: bool = False  # mirror half of the training images

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "channels", "cells", "epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)
        check_range(self, "shift", low=0, high=LARGEST)
        check_range(self, "lr", "grad_clip", above=0)
        check_range(self, "lr_min", "weight_decay", low=0)
        check_range(self, "momentum", low=0, below=1)


Choices = Callable[[Any], list[Choice]]  # genotype → what a pass of the supernet runs


def choices_of(supernet: Supernet, space: Space[Any]) -> Choices:
    """Find how a supernet runs one architecture of its space.

    Returns:
        The supernet's own method ``choices``, as DARTS's has it; otherwise a function for spaces with one decision
        per edge of one cell.

    Raises:
        ValueError: the supernet has no such method, and the space has other decisions.
    """
    if hasattr(supernet, "choices"):
        return cast(Choices, supernet.choices)
    shapes = [tuple(alpha.shape) for alpha in supernet.alphas]
    if shapes != [(len(space.num_choices), max(space.num_choices))]:
        raise ValueError(
            f"choices: a function is needed for a space with the decisions {space.num_choices} and α of shapes {shapes}"
        )
    return partial(_one_decision_per_edge, space, supernet)


def _one_decision_per_edge(space: Space[Any], supernet: Supernet, genotype: Any) -> list[Choice]:
    alpha = supernet.alphas[0]
    return [Choice.fixed(space.encode(genotype), alpha.shape[1], alpha.device)]


class UniformSupernet:
    """Uniform sampling (a :class:`~automl_ext.training.epochs.Job`): all training images, one architecture per step.

    Args:
        choices: see :class:`WeightSharing`.
    """

    def __init__(
        self,
        config: UniformSupernetConfig,
        space: Space[Any],
        splits: Splits,
        device: torch.device,
        choices: Choices | None = None,
    ) -> None:
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.space = space
        self.train = to_device(splits.train, device)
        self.rng = generator(config.seed, torch.device("cpu"))
        seed_everything(config.seed)
        shape = network_shape(splits, config.channels, config.cells)
        self.supernet = space.build_supernet(**shape, form="darts").to(device)
        self.choices = choices or choices_of(self.supernet, space)
        with torch.no_grad():
            for alpha in self.supernet.alphas:
                alpha.zero_()  # not used, and never learned
        self.optimizer = nesterov_sgd(self.supernet.weights(), config.lr, config.momentum, config.weight_decay)

    def draw(self, alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
        """Draw an architecture of the space, whatever α and τ are (a :data:`~automl_ext.nas.differentiable.samplers.Sampler`).

        Drawing every edge on its own would not do: in DARTS's space nearly all such cells have nodes with more or
        fewer than two inputs, which no genotype has.
        """
        return self.choices(self.space.random(Random(draw_seed(rng))))

    def run_epoch(self) -> dict[str, float]:
        config = self.config
        with self.clock:
            self.supernet.train()
            batches = epoch_batches(len(self.train.labels), config.batch_size, self.rng)
            losses = []
            for i, index in enumerate(batches):
                progress = (self.epoch + i / len(batches)) / self.epochs
                set_cosine_lr(self.optimizer, progress, config.lr, config.lr_min)
                batch = take(self.train, index)
                batch = Split(augment(batch.images, config.shift, config.flip, self.rng), batch.labels)
                loss = weight_step(self.supernet, self.optimizer, batch, 1.0, config.grad_clip, self.rng, self.draw)
                losses.append(loss)
            self.epoch += 1
            return {"loss": torch.stack(losses).mean().item()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": dict(self.supernet.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


class WeightSharing:
    """Scores genotypes with the weights of a supernet: validation accuracy, 0 to 1.

    An :class:`~automl_ext.nas.evaluation.Evaluator`; a budget means nothing to it, and there is no state. Any trained
    supernet will do, :class:`UniformSupernet`'s or the one of a GDAS search, whose weights favour what α favours.

    Args:
        supernet: copied.
        splits: batch norm sees training images, the score is of validation images. The test part is not read.
        images: the number of training images for batch norm.
        space: NAS-Bench-201 by default.
        choices: maps a genotype to the Choices that run it; by default that of :func:`choices_of`.

    Raises:
        ValueError: ``images`` below 1; no ``choices`` for a space that needs them.
    """

    def __init__(
        self,
        supernet: Supernet,
        splits: Splits,
        *,
        images: int = 1000,
        space: Space[Any] | None = None,
        choices: Choices | None = None,
    ) -> None:
        if images < 1:
            raise ValueError(f"images: expected at least 1, got {images}")
        self.supernet, self.space = copy.deepcopy(supernet), space or NASBench201()
        self.choices = choices or choices_of(self.supernet, self.space)
        device = supernet.alphas[0].device
        self.images = splits.train.images[:images].to(device)  # in random order
        self.valid = to_device(splits.valid, device)

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """The score of ``genotype``; failed where the supernet's weights give no numbers."""
        start = time.perf_counter()
        choices = self.choices(genotype)
        recalibrate(self.supernet, self.images, choices)
        self.supernet.eval()
        with torch.no_grad():
            finite = bool(self.supernet(self.images[:1], *choices).isfinite().all())
        score = accuracy(self.supernet, self.valid, *choices) if finite else -math.inf
        return Evaluation(score, time.perf_counter() - start, failed=not finite)
