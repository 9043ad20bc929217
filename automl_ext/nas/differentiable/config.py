"""The configuration that all searches over a supernet share."""

from __future__ import annotations

from dataclasses import dataclass

from automl_ext.nas.retraining.retrain import LARGEST
from automl_ext.nas.spaces.supernet import Form
from automl_ext.training.checks import check_range, check_seed


@dataclass
class SupernetConfig:
    """A search over a supernet, at temperature 1, and the training of what it finds."""

    space: str = "nb201"  # nb201, darts or darts-frc (with GDAS's fixed reduction cell)
    data: str = "digits"  # digits, fashion-mnist:PATH, folder:PATH or npz:PATH
    subset: int | None = None  # use so many images only
    seed: int = 0  # decides weights, α, samples, batches and augmentation
    device: str = "auto"  # auto, cpu or cuda
    channels: int = 4  # C, of the first stage
    cells: int = 1  # N, per stage
    epochs: int = 200
    warmup: float = 0.5  # share of the epochs, the first ones, in which α rests
    batch_size: int = 64
    lr: float = 0.1  # of the weights (SGD, Nesterov), at the start of the cosine
    lr_min: float = 0.001  # at its end
    momentum: float = 0.9
    weight_decay: float = 5e-4
    grad_clip: float = 5.0  # largest norm of the weights' gradient
    alpha_lr: float = 0.03  # of α (Adam)
    alpha_beta1: float = 0.5
    alpha_beta2: float = 0.999
    alpha_weight_decay: float = 1e-3
    shift: int = 1  # move training images by up to so many pixels
    flip: bool = False  # mirror half of the training images
    retrain_epochs: int = 40  # of the final training; its other numbers are those of `retrain`
    retrain_channels: int = 16
    retrain_cells: int = 1

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "subset", "channels", "cells", "epochs", low=1, high=LARGEST)
        check_range(self, "retrain_channels", "retrain_cells", "retrain_epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)
        check_range(self, "shift", low=0, high=LARGEST)
        check_range(self, "lr", "alpha_lr", "grad_clip", above=0)
        check_range(self, "lr_min", "weight_decay", "alpha_weight_decay", low=0)
        check_range(self, "momentum", "warmup", "alpha_beta1", "alpha_beta2", low=0, below=1)

    def tau(self, epoch: int) -> float:
        """The temperature of an epoch."""
        return 1.0

    def supernet_form(self) -> Form:
        """How operations that did not run enter α's gradient: not at all, unless weights are straight through."""
        return "darts"


@dataclass
class AnnealedConfig(SupernetConfig):
    """The same with a temperature that falls linearly over the epochs."""

    tau_max: float = 10.0  # temperature in the first epoch
    tau_min: float = 0.1  # in the last

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "tau_max", "tau_min", above=0)

    def tau(self, epoch: int) -> float:
        return temperature(epoch, self.epochs, self.tau_max, self.tau_min)


def temperature(epoch: int, epochs: int, tau_max: float, tau_min: float) -> float:
    """τ of an epoch: linear from tau_max in the first to tau_min in the last."""
    return tau_max - (tau_max - tau_min) * epoch / max(epochs - 1, 1)
