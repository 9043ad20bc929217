"""The options that searches over a supernet share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from automl_ext.data.pixels import check_mode, parse_size
from automl_ext.nas.spaces.supernet import Form
from automl_ext.nas.training.training_options import LARGEST, ClassWeights, check_class_weights
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.search_space import Range


@dataclass
class SupernetConfig:
    """Options of the supernet, of the training of its weights, and of the final training of the found architecture."""

    space: str = "nb201"  # Search space: nb201, darts, darts-frc (its reduction cell is fixed) or MODULE:CLASS.
    data: str = "digits"  # Data set: digits, fashion-mnist:PATH, cifar10:PATH, cifar100:PATH, folder:PATH or npz:PATH.
    subset: int | None = None  # Number of images to use; all by default.
    image_size: str | None = None  # N or HxW: resize all images to this size. Default: they must have equal sizes.
    image_mode: str = "auto"  # Color mode: rgb, gray, or auto (RGB if any image has color).
    seed: int = 0  # Seed of the weights, of α, samples, batches and augmentation.
    device: str = "auto"  # Device: auto, cpu or cuda.
    channels: int = 4  # Number of channels C of the first stage; later stages have 2C and 4C.
    cells: int = 1  # Number of cells N per stage, all with the same genotype.
    none: bool = False  # Whether "none" is a candidate; if not, the derived cell has none either.
    epochs: int = 200  # Number of search epochs.
    batch_size: int = 64  # Number of images per batch.
    lr: Annotated[float, Range(0.01, 0.5, log=True)] = 0.025  # Initial learning rate of SGD for the weights.
    lr_min: float = 0.001  # Final learning rate of the cosine schedule; equal to lr: a constant rate.
    momentum: float = 0.9  # Nesterov momentum of SGD.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-4  # Weight decay of SGD.
    grad_clip: float = 5.0  # Largest norm of the gradient of the weights.
    shift: int = 1  # Largest random shift of a training image, in pixels.
    flip: bool = False  # Mirror each training image with probability 1/2.
    class_weights: ClassWeights = None  # Weights of the classes in the loss: balanced, or one number per class.
    retrain_epochs: int = 40  # Epochs of the final training. Its other options are the defaults of the command retrain.
    retrain_channels: int = 16  # Number of channels C in the final training.
    retrain_cells: int = 1  # Number of cells N per stage in the final training.

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "subset", "channels", "cells", "epochs", low=1, high=LARGEST)
        check_range(self, "retrain_channels", "retrain_cells", "retrain_epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)
        check_range(self, "shift", low=0, high=LARGEST)
        check_range(self, "lr", "grad_clip", above=0)
        check_range(self, "weight_decay", low=0)
        if not 0 <= self.lr_min <= self.lr:
            raise ValueError(f"lr_min: expected 0 to lr ({self.lr}), got {self.lr_min}")
        check_range(self, "momentum", low=0, below=1)
        parse_size(self.image_size)
        check_mode(self.image_mode)
        check_class_weights(self.class_weights)

    def supernet_form(self) -> Form:
        """Return how operations that did not run enter the gradient of α (for straight-through weights only)."""
        return "darts"
