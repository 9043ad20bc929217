"""Weight sharing: a supernet is trained once, and its weights score every architecture of the space.

One-shot ranking as in Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling". Every
step trains one uniformly drawn architecture. Batch norm statistics are recomputed for each architecture before it is
scored.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from itertools import islice
from random import Random
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.data import network_shape
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.space import Space, supernet_of
from automl_ext.nas.spaces.supernet import Choice, Supernet, recalibrate
from automl_ext.nas.training.batches import accuracy, augment, epoch_batches, take, to_device
from automl_ext.nas.training.sgd import sgd
from automl_ext.nas.training.training_options import TrainingConfig, class_weights
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.clock import Clock, budget_clock
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import draw_seed, generator, rng_state, seed_everything, set_rng_state

LR_MIN = 0.001  # final learning rate of the cosine schedule
GRAD_CLIP = 5.0  # largest norm of the gradient
Choices = Callable[[Any], list[Choice]]  # maps a genotype to the choices that a pass of the supernet runs


def choices_of(supernet: Supernet, space: Space[Any]) -> Choices:
    """Return the function that maps a genotype to the choices of the supernet.

    It is the supernet's method ``choices`` if there is one, as in the DARTS space. Otherwise the space must have one
    decision per edge, in the same order: one cell, or several cells with one edge each.

    Raises:
        UserError: the supernet has no such method, and the space has other decisions.
    """
    if hasattr(supernet, "choices"):
        return cast(Choices, supernet.choices)
    shapes = [tuple(alpha.shape) for alpha in supernet.alphas]
    one_cell = (len(space.num_choices), max(space.num_choices))
    if shapes not in ([one_cell], [(1, count) for count in space.num_choices]):
        raise UserError(
            f"--evaluator supernet: expected the method {type(supernet).__name__}.choices(genotype), one α of shape "
            f"{one_cell}, or one of shape (1, K) per decision with K choices, got the decisions "
            f"{short(space.num_choices)} and α of shapes {short(shapes)}"
        )
    return partial(_one_decision_per_edge, space, supernet)


def _one_decision_per_edge(space: Space[Any], supernet: Supernet, genotype: Any) -> list[Choice]:
    indices = iter(space.encode(genotype))
    return [
        Choice.fixed(list(islice(indices, alpha.shape[0])), alpha.shape[1], alpha.device) for alpha in supernet.alphas
    ]


class UniformSupernet:
    """Trains a supernet on one uniformly drawn architecture per step; a :class:`~automl_ext.training.epochs.Job`.

    Raises:
        UserError: ``config`` sets cutout, CutMix, drop-path, the auxiliary head or bfloat16, which it does not
            support; or :func:`choices_of` does not know the space.
    """

    def __init__(self, config: TrainingConfig, space: Space[Any], splits: Splits, device: torch.device) -> None:
        for name in ("cutout", "cutmix", "drop_path", "auxiliary", "bfloat16"):
            if getattr(config, name):
                raise UserError(f"{name}: the evaluator supernet has no such option, got {getattr(config, name)}")
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.space = space
        self.train = to_device(splits.train, device)
        self.rng = generator(config.seed, torch.device("cpu"))
        self.class_weights = class_weights(config.class_weights, self.train.labels, splits.num_classes)
        seed_everything(config.seed)
        shape = network_shape(splits, config.channels, config.cells)
        self.supernet = supernet_of(space, **shape, form="darts").to(device)
        self.choices = choices_of(self.supernet, space)
        with torch.no_grad():
            for alpha in self.supernet.alphas:
                alpha.zero_()  # α is not used and not trained
        self.optimizer = sgd(self.supernet.weights(), config.lr, config.momentum, config.weight_decay)

    def draw(self, rng: torch.Generator) -> list[Choice]:
        """Draw an architecture uniformly.

        Edges cannot be drawn independently: in the DARTS space, nearly all such cells would have nodes with more or
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
                set_cosine_lr(self.optimizer, progress, config.lr, min(LR_MIN, config.lr))
                batch = take(self.train, index)
                batch = Split(augment(batch.images, config.shift, config.flip, self.rng), batch.labels)
                losses.append(self.step(batch, self.draw(self.rng)))
            self.epoch += 1
            return {"loss": torch.stack(losses).mean().item()}

    def step(self, batch: Split, choices: list[Choice]) -> Tensor:
        """Take one SGD step on the weights of an architecture. Return the loss, 0-dim, detached.

        ``zero_grad`` sets the gradients to None, so operations that do not run get neither weight decay nor momentum.
        """
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.supernet(batch.images, *choices), batch.labels, self.class_weights)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.weights(), GRAD_CLIP)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": dict(self.supernet.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "global_rng": rng_state(),  # layers of a supernet may draw from it, such as dropout
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.rng.set_state(state["rng"])
        set_rng_state(state["global_rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


class WeightSharing:
    """Scores genotypes with the weights of a supernet. The score is the validation accuracy, 0 to 1.

    This is an :class:`~automl_ext.nas.evaluation.Evaluator` that ignores budgets and has no state. Any trained supernet
    can be used: from :class:`UniformSupernet`, or from a GDAS search, whose weights favor the operations with large α.

    Args:
        supernet: a trained supernet; it is copied.
        splits: training images for batch norm and validation images for the score. The test part is not used.
        images: number of training images for batch norm.
        space: the search space; None: NAS-Bench-201.

    Raises:
        ValueError: ``images`` is below 1.
        UserError: the supernet needs a method ``choices``; see :func:`choices_of`.
    """

    def __init__(
        self,
        supernet: Supernet,
        splits: Splits,
        *,
        images: int = 1000,
        space: Space[Any] | None = None,
    ) -> None:
        if images < 1:
            raise ValueError(f"images: expected at least 1, got {images}")
        self.supernet, self.space = copy.deepcopy(supernet), space or NASBench201()
        self.choices = choices_of(self.supernet, self.space)
        device = supernet.alphas[0].device
        self.images = splits.train.images[:images].to(device)  # they are in random order
        self.valid = to_device(splits.valid, device)

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Score ``genotype``. The evaluation has failed if a logit is not finite."""
        clock = budget_clock(self.valid.labels.device)
        start = clock()
        choices = self.choices(genotype)
        recalibrate(self.supernet, self.images, choices)
        self.supernet.eval()
        with torch.no_grad():
            finite = bool(self.supernet(self.images[:1], *choices).isfinite().all())
        score = accuracy(self.supernet, self.valid, *choices) if finite else -math.inf
        return Evaluation(score, clock() - start, failed=not finite)
