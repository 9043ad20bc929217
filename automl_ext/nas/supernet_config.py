"""What the searches over a supernet have in common to set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from automl_ext.nas.retrain import at_least, check_seed
from automl_ext.nas.supernet import Form


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
        at_least(self, {"channels": 1, "cells": 1, "epochs": 1, "batch_size": 2, "shift": 0})
        at_least(self, {"retrain_channels": 1, "retrain_cells": 1, "retrain_epochs": 1})
        at_least(self, {"lr": 0, "lr_min": 0, "momentum": 0, "weight_decay": 0, "grad_clip": 0})
        at_least(self, {"alpha_lr": 0, "alpha_weight_decay": 0})
        for name in ("warmup", "alpha_beta1", "alpha_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number in [0, 1), got {getattr(self, name)}")

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
        for name in ("tau_max", "tau_min"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive temperature, got {getattr(self, name)}")

    def tau(self, epoch: int) -> float:
        return temperature(epoch, self.epochs, self.tau_max, self.tau_min)


def temperature(epoch: int, epochs: int, tau_max: float, tau_min: float) -> float:
    """τ of an epoch: linear from tau_max in the first to tau_min in the last."""
    return tau_max - (tau_max - tau_min) * epoch / max(epochs - 1, 1)
