"""The options that all differentiable searches share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from automl_ext.data.pixels import check_mode, parse_size
from automl_ext.nas.retraining.class_weights import ClassWeights, check_class_weights
from automl_ext.nas.retraining.training import LARGEST
from automl_ext.nas.spaces.supernet import Form
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.search_space import Range


@dataclass
class SupernetConfig:
    """Options of a search over a supernet, and of the final training of the architecture it finds."""

    space: str = "nb201"  # Search space: nb201, darts, darts-frc (its reduction cell is fixed) or MODULE:CLASS.
    data: str = "digits"  # Data set: digits, fashion-mnist:PATH, cifar10:PATH, cifar100:PATH, folder:PATH or npz:PATH.
    subset: int | None = None  # Number of images to use; all by default.
    image_size: str | None = None  # N or HxW: resize all images to this size. Default: they must have equal sizes.
    image_mode: str = "auto"  # Color mode: rgb, gray, or auto (RGB if any image has color).
    seed: int = 0  # Seed of the weights, of α, samples, batches and augmentation.
    device: str = "auto"  # Device: auto, cpu or cuda.
    channels: int = 4  # Number of channels C of the first stage; later stages have 2C and 4C.
    cells: int = 1  # Number of cells N per stage, all with the same genotype.
    epochs: int = 200  # Number of search epochs.
    warmup: Annotated[float, Range(0.0, 0.8)] = 0.5  # Fraction of the epochs, at the start, during which α is fixed.
    batch_size: int = 64  # Number of images per batch.
    lr: Annotated[float, Range(0.01, 0.5, log=True)] = 0.1  # Initial learning rate of SGD for the weights.
    lr_min: float = 0.001  # Final learning rate of the cosine schedule.
    momentum: float = 0.9  # Nesterov momentum of SGD.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 5e-4  # Weight decay of SGD.
    grad_clip: float = 5.0  # Largest norm of the gradient of the weights.
    alpha_lr: Annotated[float, Range(1e-4, 0.1, log=True)] = 0.03
    """Learning rate of Adam for α, the logits of each edge's operations."""
    alpha_beta1: float = 0.5  # First decay rate of Adam for α.
    alpha_beta2: float = 0.999  # Second decay rate of Adam for α.
    alpha_weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 1e-3  # Weight decay of Adam for α.
    shift: int = 1  # Largest random shift of a training image, in pixels.
    flip: bool = False  # Mirror each training image with probability 1/2.
    class_weights: ClassWeights = None  # Weights of the classes in the loss: balanced, or one number per class.
    beta_decay: float = 0.0  # Final weight of β-decay, which rises linearly from 0 (β-DARTS: 50; 0: off).
    none: bool = True  # Whether "none" is a candidate during the search; if not, the derived cell has none either.
    fair_warmup: bool = False  # Run every operation of an edge equally often during the warm-up (FairNAS).
    partial_channels: int = 1  # k: 1/k of the channels pass through the operations (PC-DARTS: 4; 1: all).
    stop_skip: float | None = None  # End the search at this share of skip connections in the cell (DARTS+: 0.25).
    derive: Literal["alpha", "perturbation"] = "alpha"  # Largest α, or the operation whose removal hurts most.
    tune_epochs: int = 1  # Epochs of training after each edge that perturbation has decided.
    orders: int = 1  # Derivations by perturbation, each with its own order of edges; training-free scores choose one.
    tie: float = 0.0  # Difference of probabilities up to which a training-free score decides (Python only).
    retrain_epochs: int = 40  # Epochs of the final training. Its other options are the defaults of the command retrain.
    retrain_channels: int = 16  # Number of channels C in the final training.
    retrain_cells: int = 1  # Number of cells N per stage in the final training.

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "subset", "channels", "cells", "epochs", low=1, high=LARGEST)
        check_range(self, "retrain_channels", "retrain_cells", "retrain_epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)
        check_range(self, "shift", low=0, high=LARGEST)
        check_range(self, "lr", "alpha_lr", "grad_clip", above=0)
        check_range(self, "lr_min", "weight_decay", "alpha_weight_decay", low=0)
        check_range(self, "momentum", "alpha_beta1", "alpha_beta2", low=0, below=1)
        check_range(self, "beta_decay", "tie", low=0)
        check_range(self, "tune_epochs", low=0, high=LARGEST)
        check_range(self, "orders", low=1, high=LARGEST)
        check_range(self, "stop_skip", above=0, high=1)
        self._check_warmup()
        self._check_switches()
        parse_size(self.image_size)
        check_mode(self.image_mode)
        check_class_weights(self.class_weights)

    def _check_warmup(self) -> None:
        if self.derive == "perturbation":
            check_range(self, "warmup", low=0, high=1)  # 1: α stays fixed
        elif self.warmup == 1:  # the value of the recipe "robust"
            raise ValueError(
                f"warmup: expected below 1 with derive = {self.derive!r}, got 1, as in the recipe robust: α is never "
                "trained then; set warmup = 0.5, or the recipe paper"
            )
        else:
            check_range(self, "warmup", low=0, below=1)
        if self.fair_warmup and self.warmup == 0:
            raise ValueError("fair_warmup: expected warmup above 0, got 0")
        for name in ("beta_decay", "stop_skip"):
            if self.warmup == 1 and getattr(self, name):
                raise ValueError(f"{name}: expected warmup below 1, got 1: α is fixed during the warm-up")

    def _check_switches(self) -> None:
        check_range(self, "partial_channels", low=1, high=LARGEST)
        if self.channels % self.partial_channels:
            raise ValueError(
                f"partial_channels: expected a divisor of channels ({self.channels}), got {self.partial_channels}"
            )
        if self.derive not in ("alpha", "perturbation"):
            raise ValueError(f'derive: expected "alpha" or "perturbation", got {self.derive!r}')
        if self.derive == "perturbation" and self.tie > 0:
            raise ValueError(f"tie: expected 0 with derive perturbation, which has no probabilities, got {self.tie}")
        if self.orders > 1 and self.derive != "perturbation":
            raise ValueError(f"orders: expected 1 with derive {self.derive}, got {self.orders}")
        if self.orders > 1 and self.tune_epochs:
            raise ValueError(
                f"orders: expected 1 with tune_epochs {self.tune_epochs}, got {self.orders}: all derivations start "
                "from the same weights, so set tune_epochs to 0"
            )

    def tau(self, epoch: int) -> float:
        """Return the temperature τ in ``epoch``; searches without a temperature use 1."""
        return 1.0

    def supernet_form(self) -> Form:
        """Return how operations that did not run enter the gradient of α (for straight-through weights only)."""
        return "darts"


@dataclass
class AnnealedConfig(SupernetConfig):
    """Options of a search with a temperature that falls linearly over the epochs."""

    tau_max: Annotated[float, Range(1.0, 20.0, log=True)] = 10.0
    """Temperature τ of the samples in the first epoch; it falls linearly."""
    tau_min: Annotated[float, Range(0.05, 1.0, log=True)] = 0.1  # Temperature τ of the samples in the last epoch.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "tau_max", "tau_min", above=0)

    def tau(self, epoch: int) -> float:
        return temperature(epoch, self.epochs, self.tau_max, self.tau_min)


def temperature(epoch: int, epochs: int, tau_max: float, tau_min: float) -> float:
    """Return τ of an epoch: linear from ``tau_max`` in the first to ``tau_min`` in the last."""
    return tau_max - (tau_max - tau_min) * epoch / max(epochs - 1, 1)
