"""The training of one network by optimizer steps, which may stop after any step and go on later.

After a warm-up, the learning rate is constant, so that a training can be continued for any time, and falls to zero only
at the end (Hu et al. 2024, "MiniCPM", warm-up, stable, decay). Losses and accuracies are those of a running average of
the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from automl_ext.data.images import Split
from automl_ext.nas.training.batches import augment, cutmix, epoch_batches, mixed_cross_entropy, take
from automl_ext.training.machine.clock import Clock
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, generator

MOMENTUM, LABEL_SMOOTHING = 0.9, 0.1
WARM_UP = 30  # steps
DECAY = 0.4  # the share of the steps, at the end, in which the rate falls
WINDOW = 10  # the average of the weights covers about the last tenth of the steps


@dataclass(frozen=True)
class Recipe:
    """The settings with which a network is trained, by SGD with Nesterov momentum.

    Attributes:
        shift: largest shift of an image, in pixels.
        flip: mirror each image with probability 1/2.
        cutmix: probability that a rectangle of each image of a batch comes from another image.
        weight_decay: weight decay of convolutions and linear layers.
        bfloat16: whether the network is computed in bfloat16, with weights in float32.
    """

    lr: float
    batch_size: int
    shift: int
    flip: bool
    cutmix: float = 0.0
    weight_decay: float = 5e-4
    bfloat16: bool = False


class Trainee:
    """A network in training. All randomness, dropout included, comes from ``seed`` and the number of the step.

    Attributes:
        step: number of steps so far.
        epochs: number of times that each image was used, on average.
        average: the network with the running average of the weights.
    """

    def __init__(self, network: nn.Module, seed: int, class_weights: Tensor | None = None) -> None:
        self.network, self.seed, self.class_weights = network, seed, class_weights
        self.average = AveragedModel(network, multi_avg_fn=running_average, use_buffers=True)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]  # of batch norms, and biases
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others}]
        self.optimizer = torch.optim.SGD(groups, lr=1.0, momentum=MOMENTUM, nesterov=True)
        self.step, self.epochs, self.clock = 0, 0.0, Clock()

    def train(self, images: Split, recipe: Recipe, until: int, end: int | None = None) -> float:
        """Train until step ``until``. Return the mean loss of the new steps.

        Args:
            end: the last step of the whole training, at which the rate is zero; None: it is not known yet.
        """
        losses: list[Tensor] = []
        size = len(images.labels)
        per_epoch = max(size // recipe.batch_size, 1)  # as epoch_batches divides them
        batches, drawn = [], -1
        self.network.train()
        with self.clock:
            while self.step < until:
                epoch, number = divmod(self.step, per_epoch)
                if epoch != drawn:
                    order = generator(derived_seed(self.seed, size, epoch))
                    batches, drawn = epoch_batches(size, recipe.batch_size, order), epoch
                loss = self.update(take(images, batches[number]), recipe, rate(recipe.lr, self.step, end))
                losses.append(loss.detach())
                self.step += 1
                self.epochs += len(batches[number]) / size
            return torch.stack(losses).mean().item() if losses else 0.0  # waits for the GPU, before the clock stops

    def update(self, batch: Split, recipe: Recipe, lr: float) -> Tensor:
        """Do one step on a batch. Return the loss."""
        random = generator(derived_seed(self.seed, 1, self.step))
        dropout = derived_seed(self.seed, 2, self.step)
        torch.default_generator.manual_seed(dropout)  # torch.manual_seed would take 0.1 ms, for the GPUs
        if batch.images.is_cuda:
            torch.cuda.manual_seed(dropout)
        images = augment(batch.images, recipe.shift, recipe.flip, random)
        images, others, share = cutmix(images, batch.labels, recipe.cutmix, random)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            logits = self.network(images).float()
        loss = mixed_cross_entropy(logits, batch.labels, others, share, self.class_weights, LABEL_SMOOTHING)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.param_groups[0]["weight_decay"] = recipe.weight_decay
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "epochs": self.epochs,
            "network": dict(self.network.state_dict()),
            "average": dict(self.average.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "weight_decay": self.optimizer.param_groups[0]["weight_decay"],
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.epochs = state["step"], state["epochs"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.param_groups[0]["weight_decay"] = state["weight_decay"]  # of the recipe, which may change
        load_optimizer(self.optimizer, state["optimizer"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def rate(lr: float, step: int, end: int | None) -> float:
    """Return the learning rate of a step: a warm-up, ``lr``, and a linear decay in the last part of ``end`` steps."""
    value = lr * min(1.0, (step + 1) / WARM_UP)
    return value if end is None else value * min(1.0, (end - step) / (DECAY * end))


def running_average(average: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Move an average of ``count`` steps towards the current values (Shamir & Zhang 2013, polynomial decay)."""
    if average[0].is_floating_point():
        torch._foreach_lerp_(list(average), list(current), WINDOW / (float(count) + WINDOW))
    else:
        torch._foreach_copy_(list(average), list(current))
