"""The loop of a differentiable search: GDAS, entmax-GDAS and DARTS differ in their sampler and options only.

Steps alternate between the weights and α (:mod:`automl_ext.nas.differentiable.steps`). The derived architecture is then
trained from scratch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.images import Split, Splits
from automl_ext.nas.data import prepare
from automl_ext.nas.differentiable.collapse import alpha_scalars
from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.samplers import Sampler
from automl_ext.nas.differentiable.steps import alpha_step, weight_step
from automl_ext.nas.retraining.class_weights import class_weights
from automl_ext.nas.retraining.images import accuracy, augment, epoch_batches, take, to_device
from automl_ext.nas.retraining.optimizer import nesterov_sgd
from automl_ext.nas.retraining.retrain import RetrainConfig
from automl_ext.nas.retraining.training import NetworkTraining, measure, network_shape
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, batch_accuracy, recalibrate
from automl_ext.training.clock import Clock
from automl_ext.training.device import choose_device
from automl_ext.training.epochs import Epochs, set_cosine_lr
from automl_ext.training.run import Run
from automl_ext.training.seeding import generator, seed_everything

VALID_IMAGES = 500  # largest number of validation images for the accuracy after each epoch


class SupernetSearch:
    """The search, a :class:`~automl_ext.training.epochs.Job`.

    One half of the training images trains the weights, the other half α.

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
        self.valid = to_device(take(splits.valid, torch.arange(min(VALID_IMAGES, len(splits.valid.labels)))), device)
        self.class_weights = class_weights(config.class_weights, train.labels, splits.num_classes)
        seed_everything(config.seed)
        shape = network_shape(splits, config.channels, config.cells)
        self.supernet = space.build_supernet(**shape, form=config.supernet_form()).to(device)
        self.weight_optimizer = nesterov_sgd(self.supernet.weights(), config.lr, config.momentum, config.weight_decay)
        self.alpha_optimizer = torch.optim.Adam(
            self.supernet.alphas.parameters(),
            lr=config.alpha_lr,
            betas=(config.alpha_beta1, config.alpha_beta2),
            weight_decay=config.alpha_weight_decay,
        )

    def run_epoch(self) -> dict[str, float]:
        """Run one epoch of alternating steps.

        Returns:
            The mean losses, the temperature, the mean number of operations run per edge (``support``), and
            :func:`~automl_ext.nas.differentiable.collapse.alpha_scalars`. No ``alpha_loss`` during the warm-up.
            ``supernet_accuracy`` is that of the architecture argmax α with the shared weights, on validation images and
            with their batch statistics.
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
                batch = self.batch(self.weight_images, weight_batches[i])
                common = self.rng, self.draw, self.class_weights
                loss = weight_step(self.supernet, self.weight_optimizer, batch, tau, config.grad_clip, *common)
                losses.append(loss)
                if self.epoch >= config.warmup * self.epochs:
                    batch = self.batch(self.alpha_images, alpha_batches[i])
                    loss = alpha_step(self.supernet, self.alpha_optimizer, batch, tau, *common)
                    alpha_losses.append(loss)
            self.epoch += 1
        means = {"loss": losses, "alpha_loss": alpha_losses}
        scalars = {name: torch.stack(values).mean().item() for name, values in means.items() if values}
        scalars["supernet_accuracy"] = batch_accuracy(
            self.supernet, self.valid.images, self.valid.labels, self.supernet.argmax()
        )
        scalars |= {"tau": tau, "support": sum(self.support) / len(self.support)}
        return scalars | alpha_scalars(list(self.supernet.alphas), self.supernet.operations)

    def draw(self, alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
        """Choose what a step runs, and record the number of operations run on each edge."""
        choices = self.sample(alphas, tau, rng)
        self.support += [len(active) for choice in choices for active in choice.active]
        return choices

    def batch(self, images: Split, index: Tensor) -> Split:
        """Return the augmented images at ``index`` and their labels."""
        batch = take(images, index)
        shifted = augment(batch.images, self.config.shift, self.config.flip, self.rng)
        return Split(shifted, batch.labels)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": dict(self.supernet.state_dict()),  # includes α
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


def search_supernet(
    config: SupernetConfig,
    out: str | Path,
    sample: Sampler,
    algorithm: str,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Search, then train the found architecture on the training and validation images and test it once.

    The result is bitwise reproducible for the same configuration, number of threads, PyTorch version, backend and
    processor type. Another number of threads rounds differently: PyTorch sums the batch norm statistics of
    channels-last images, and oneDNN the weight gradients of convolutions, in one part per thread. The reference
    backend rounds the gradients of α differently. Training amplifies rounding differences, so such a search may find
    another architecture. The architectures that a step samples depend on α and the seed only, not on threads.

    Args:
        out: the run directory.
        sample: chooses the operations that a forward pass runs; see :mod:`automl_ext.nas.differentiable.samplers`.
        algorithm: the name under which the run is stored.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of epochs, of search and final training together, after which to interrupt the run.
        space: the search space; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.

    Returns:
        The contents of ``result.json``: those of :func:`automl_ext.nas.retraining.retrain.retrain`, supernet_accuracy
        (of the found architecture with the supernet's weights, on the validation images) and alpha. None if the run
        was interrupted.

    Raises:
        UserError: the data, the configuration or the run directory is invalid, or the search diverges.
    """
    space = space or spaces.space(config.space)
    config, splits = prepare(config, data)
    device = choose_device(config.device)
    job = SupernetSearch(config, space, splits, device, sample)  # may raise: before the run directory exists
    found: dict[str, Any] | None = None
    training: NetworkTraining | None = None

    def load(state: dict[str, Any]) -> None:
        nonlocal found, training
        found, training = renamed(state["found"]), None
        if found is None:
            job.load_state_dict(state["job"])
        else:
            training = final_training(found)
            training.load_state_dict(state["job"])

    def final_training(found: dict[str, Any]) -> NetworkTraining:
        genotype = space.parse(found["genotype"])
        return NetworkTraining(retrain_config(config, genotype), space, genotype, splits, device)

    with Run.open(out, config, algorithm=algorithm, resume=resume, load=load) as run:
        total = config.epochs + config.retrain_epochs
        with Epochs(run, total, "search", stop_after) as epochs:
            if found is None:
                if not epochs.run(job, "search", {"found": None}):
                    return None
                found = conclude(job, splits)
            training = training or final_training(found)
            if not epochs.run(training, "retrain", {"found": found}):
                return None
        result = measure(training, space.parse(found["genotype"]), splits)
        result |= {key: value for key, value in found.items() if key != "times"}
        result["times"] |= found["times"]
        run.finish(result)
        return result


def renamed(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the found architecture of a checkpoint with the present names: versions before 0.2.0 had another one."""
    if found is None or "valid_accuracy" not in found:
        return found
    return {"supernet_accuracy" if key == "valid_accuracy" else key: value for key, value in found.items()}


def conclude(job: SupernetSearch, splits: Splits) -> dict[str, Any]:
    """Derive the architecture of a finished search and measure it with the supernet's weights.

    Returns:
        genotype, supernet_accuracy, alpha and times, as plain Python values.
    """
    genotype = job.supernet.derive()
    valid = to_device(splits.valid, job.weight_images.labels.device)
    choices = job.supernet.argmax()
    recalibrate(job.supernet, job.weight_images.images, choices)
    return {
        "genotype": str(genotype),
        "supernet_accuracy": accuracy(job.supernet, valid, *choices),
        "alpha": [alpha.tolist() for alpha in job.supernet.alphas],
        "times": {"search_seconds": job.clock.wall, "search_cpu_seconds": job.clock.cpu},
    }


def retrain_config(config: SupernetConfig, genotype: Any) -> RetrainConfig:
    """Return the configuration of the final training, which equals the command ``retrain`` with these options."""
    return RetrainConfig(
        genotype=str(genotype),
        space=config.space,
        data=config.data,
        subset=config.subset,
        image_size=config.image_size,
        image_mode=config.image_mode,
        seed=config.seed,
        device=config.device,
        channels=config.retrain_channels,
        shift=config.shift,
        flip=config.flip,
        class_weights=config.class_weights,
        cells=config.retrain_cells,
        epochs=config.retrain_epochs,
    )
