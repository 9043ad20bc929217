"""GDAS: differentiable architecture search by Gumbel sampling (Dong & Yang, CVPR 2019).

Every step samples one architecture for the weights and one for α:

    g ~ Gumbel(0, 1);  p = softmax((log_softmax(α) + g)/τ);  w = onehot(argmax p) − sg(p) + p
    1. a training batch:    ω ← ω − SGD of the loss of the sampled architecture
    2. a validation batch:  α ← α − Adam of the loss, through w (straight through the argmax)

τ falls linearly over the epochs. The search ends with argmax α on every edge, trained from scratch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits, load_images, split_images
from automl_ext.nas.differentiable.collapse import alpha_scalars
from automl_ext.nas.differentiable.config import AnnealedConfig, SupernetConfig
from automl_ext.nas.differentiable.samplers import Sampler, sample
from automl_ext.nas.differentiable.steps import alpha_step, weight_step
from automl_ext.nas.retraining.images import accuracy, augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.retrain import RetrainConfig, Training, measure, network_shape
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, Form, Supernet
from automl_ext.training.clock import Clock
from automl_ext.training.device import choose_device
from automl_ext.training.epochs import Epochs, set_cosine_lr
from automl_ext.training.run import Run
from automl_ext.training.seeding import generator, seed_everything


@dataclass
class GDASConfig(AnnealedConfig):
    """A search and the training of what it finds.

    The defaults are for the digits: 1,600 steps, a sixtieth of the paper's 250 epochs of 390, and they were
    chosen on the digits. Adam moves α by about its learning rate per step: the paper's α, at 3e-4, stays near
    its start for thousands of steps, while the weights learn. So ``alpha_lr`` is larger, by the ratio of α's
    steps, and α rests for a share ``warmup`` of the epochs, which the paper does not have. In our trials
    searches without it ended more often in "none", pooling and skip connections.
    The paper: channels 16, cells 5, epochs 250, warmup 0, lr 0.025, alpha_lr 3e-4, form "nb201".
    """

    form: Form = "darts"  # how α gets its gradient: as in the code for NAS-Bench-201 or for the DARTS space

    def supernet_form(self) -> Form:
        return self.form


class GDAS:
    """The search (a :class:`~automl_ext.training.epochs.Job`): half of the training images for ω, half for α."""

    def __init__(
        self,
        config: SupernetConfig,
        space: Space[Any],
        splits: Splits,
        device: torch.device,
        sample: Sampler = sample,
    ) -> None:
        self.sample = sample
        self.config, self.epochs, self.epoch, self.clock = config, config.epochs, 0, Clock()
        self.rng = generator(config.seed, torch.device("cpu"))
        order = torch.randperm(len(splits.train.labels), generator=self.rng)
        train = to_device(splits.train, device)
        self.weight_images, self.alpha_images = (take(train, half) for half in order.tensor_split(2))
        seed_everything(config.seed)
        shape = network_shape(splits, config.channels, config.cells)
        self.supernet = space.build_supernet(**shape, form=config.supernet_form()).to(device)
        self.weight_optimizer = torch.optim.SGD(
            self.supernet.weights(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.supernet.alphas.parameters(),
            lr=config.alpha_lr,
            betas=(config.alpha_beta1, config.alpha_beta2),
            weight_decay=config.alpha_weight_decay,
        )

    def run_epoch(self) -> dict[str, float]:
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
                batch = self.batch(self.weight_images, weight_batches[i])
                loss = weight_step(
                    self.supernet, self.weight_optimizer, batch, tau, config.grad_clip, self.rng, self.draw
                )
                losses.append(loss)
                if self.epoch >= config.warmup * self.epochs:
                    batch = self.batch(self.alpha_images, alpha_batches[i])
                    loss = alpha_step(self.supernet, self.alpha_optimizer, batch, tau, self.rng, self.draw)
                    alpha_losses.append(loss)
            self.epoch += 1
            means = {"loss": losses, "alpha_loss": alpha_losses}
            scalars = {name: torch.stack(values).mean().item() for name, values in means.items() if values}
            scalars |= {"tau": tau, "support": sum(self.support) / len(self.support)}
            return scalars | alpha_scalars(list(self.supernet.alphas), self.supernet.operations)

    def draw(self, alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
        """What a step runs; counts the operations with weight on each edge."""
        choices = self.sample(alphas, tau, rng)
        self.support += [len(active) for choice in choices for active in choice.active]
        return choices

    def batch(self, images: Split, index: Tensor) -> Split:
        batch = take(images, index)
        shifted = augment(batch.images, self.config.shift, self.config.flip, self.rng)
        return Split(shifted, batch.labels)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": dict(self.supernet.state_dict()),  # α among it
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.rng.set_state(state["rng"])
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def search(
    config: SupernetConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    sample: Sampler = sample,
    algorithm: str = "gdas",
) -> dict[str, Any] | None:
    """Search, then train the found architecture on the training and validation images, and test it once.

    The result is the same bit for bit for the same configuration, number of threads, PyTorch version, backend and
    kind of processor. Another number of threads gives another rounding: PyTorch sums the batch norm statistics of
    channels-last images, and oneDNN the weight gradients of convolutions, in one part per thread. The reference
    backend rounds the gradients of α differently. Training amplifies rounding, so such a search may end with another
    architecture, as with another seed. What a step samples depends on α and the seed only, not on threads.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after this number of epochs, those of the final training included.
        space: the search space, in place of the one that ``config.space`` names.
        sample: chooses what a pass runs; see :mod:`automl_ext.nas.differentiable.samplers`.
        algorithm: the name under which the run is stored.

    Returns:
        What ``result.json`` holds: genotype, test_accuracy, valid_accuracy (of the found architecture
        with the supernet's weights, on the validation images), alpha, parameters and times; None when
        stopped.

    Raises:
        UserError: bad data, configuration or run directory, or a search that diverges.
    """
    space = space or spaces.space(config.space)
    splits = split_images(load_images(config.data, subset=config.subset))
    device = choose_device(config.device)
    gdas = GDAS(config, space, splits, device, sample)  # before there is a directory: a space may have no supernet
    found: dict[str, Any] | None = None
    training: Training | None = None

    def load(state: dict[str, Any]) -> None:
        nonlocal found, training
        found, training = state["found"], None
        if found is None:
            gdas.load_state_dict(state["job"])
        else:
            training = final_training(found)
            training.load_state_dict(state["job"])

    def final_training(found: dict[str, Any]) -> Training:
        genotype = space.parse(found["genotype"])
        return Training(retrain_config(config, genotype), space, genotype, splits, device)

    with Run.open(out, config, algorithm=algorithm, resume=resume, load=load) as run:
        total = config.epochs + config.retrain_epochs
        with Epochs(run, total, "search", stop_after) as epochs:
            if found is None:
                if not epochs.run(gdas, "search", {"found": None}):
                    return None
                found = conclude(gdas, space, splits)
            training = training or final_training(found)
            if not epochs.run(training, "retrain", {"found": found}):
                return None
        result = measure(training, space.parse(found["genotype"]), splits)
        result |= {key: value for key, value in found.items() if key != "times"}
        result["times"] |= found["times"]
        run.finish(result)
        return result


def conclude(gdas: GDAS, space: Space[Any], splits: Splits) -> dict[str, Any]:
    """What a finished search found, as plain Python."""
    genotype = gdas.supernet.derive()
    valid = to_device(splits.valid, gdas.weight_images.labels.device)
    choices = gdas.supernet.argmax()
    recalibrate(gdas.supernet, gdas.weight_images.images, choices)
    return {
        "genotype": str(genotype),
        "valid_accuracy": accuracy(gdas.supernet, valid, *choices),
        "alpha": [alpha.tolist() for alpha in gdas.supernet.alphas],
        "times": {"search_seconds": gdas.clock.wall, "search_cpu_seconds": gdas.clock.cpu},
    }


@torch.no_grad()
def recalibrate(supernet: Supernet, images: Tensor, choices: list[Choice]) -> None:
    """Batch norm statistics of one architecture, in place of an average over all that were sampled."""
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain average over what follows
    supernet.train()
    for batch in images.split(500):
        supernet(batch, *choices)


def retrain_config(config: SupernetConfig, genotype: Any) -> RetrainConfig:
    """The final training, as the command ``retrain`` would do it."""
    return RetrainConfig(
        genotype=str(genotype),
        space=config.space,
        data=config.data,
        subset=config.subset,
        seed=config.seed,
        device=config.device,
        channels=config.retrain_channels,
        shift=config.shift,
        flip=config.flip,
        cells=config.retrain_cells,
        epochs=config.retrain_epochs,
    )
