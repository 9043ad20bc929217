"""The options of the training of a network, and the weights of the classes in its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from automl_ext.data.pixels import check_mode, parse_size
from automl_ext.training.checks import LARGEST as LARGEST_FLOAT
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.search_space import Range

LARGEST = 2**31 - 1  # largest count: PyTorch and NumPy cannot convert larger values
MANY = 1_000_000  # largest number of networks, genotypes or rounds that an option may set
ClassWeights = Literal["balanced"] | tuple[float, ...] | None
# The options without which a later training would use other images, or change them in another way.
SAME_IMAGES = ("space", "data", "subset", "image_size", "image_mode", "seed", "class_weights", "flip", "shift")


@dataclass
class ImageConfig:
    """Options of the images of a run and of the networks for them."""

    # Search space: nb201, darts, darts-frc (its reduction cell is fixed), renas, convnet or MODULE:CLASS.
    space: str = "nb201"
    data: str = "digits"  # Data set: digits, fashion-mnist:PATH, cifar10:PATH, cifar100:PATH, folder:PATH or npz:PATH.
    subset: int | None = None  # Number of images to use; all by default.
    image_size: str | None = None  # N or HxW: resize all images to this size. Default: they must have equal sizes.
    image_mode: str = "auto"  # Color mode: rgb, gray, or auto (RGB if any image has color).
    seed: int = 0
    """Seed of all random numbers, except that the subset and the split of the images are the same for every seed."""
    device: str = field(default="auto", metadata={"without_effect": True})  # Device: auto, cpu or cuda.
    channels: int = 16  # Number of channels C of the first stage; later stages have 2C and 4C.
    cells: int = 1  # Number of cells N per stage, all with the same genotype.

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "subset", "channels", "cells", low=1, high=LARGEST)
        parse_size(self.image_size)
        check_mode(self.image_mode)


@dataclass
class TrainingConfig(ImageConfig):
    """Options of the training of a network: SGD with Nesterov momentum and a cosine learning rate."""

    epochs: int = 40  # Number of training epochs.
    batch_size: Annotated[int, Range(16, 256, log=True)] = 64  # Number of images per batch.
    lr: Annotated[float, Range(1e-3, 0.5, log=True)] = 0.05
    """Initial learning rate of SGD; the cosine schedule ends at 0."""
    momentum: Annotated[float, Range(0.5, 0.99)] = 0.9  # Nesterov momentum of SGD.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 5e-4  # Weight decay of SGD.
    shift: Annotated[int, Range(0, 4)] = 1  # Largest random shift of a training image, in pixels.
    flip: bool = False  # Mirror each training image with probability 1/2.
    cutout: int = 0  # Side of a square set to zero in each training image, in pixels (DARTS: 16).
    cutmix: float = 0.0  # Probability that a rectangle of each image of a batch comes from another image.
    drop_path: float = 0.0  # Drop-path probability; rises linearly from 0 to about this value (DARTS: 0.2).
    auxiliary: float = 0.0  # Weight of the auxiliary classifier's loss; 0 for no auxiliary head (DARTS: 0.4).
    class_weights: ClassWeights = None  # Weights of the classes in the loss: balanced, or one number per class.
    bfloat16: bool = False
    """Compute the network in bfloat16 during training; weights stay float32. Faster on recent processors and GPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)  # batch norm needs two images
        check_range(self, "shift", "cutout", low=0, high=LARGEST)
        check_range(self, "lr", above=0)
        check_range(self, "cutmix", low=0, high=1)
        check_range(self, "momentum", "drop_path", low=0, below=1)
        check_range(self, "weight_decay", "auxiliary", low=0)
        check_class_weights(self.class_weights)


def check_class_weights(weights: str | Sequence[float] | None) -> None:
    """Raise ValueError unless ``weights`` is None, "balanced" or a list or tuple of numbers above 0, at most 1e30."""
    if weights is None or weights == "balanced":
        return
    numbers = isinstance(weights, (list, tuple)) and all(isinstance(w, (int, float)) for w in weights)
    if not numbers or not weights or not all(0 < w <= LARGEST_FLOAT for w in weights):  # type: ignore[operator]
        raise ValueError(f"class_weights: expected balanced, or one number above 0 per class, got {short(weights)}")


def class_weights(weights: str | Sequence[float] | None, labels: Tensor, num_classes: int) -> Tensor | None:
    """Return the weights for ``F.cross_entropy``, float32 [num_classes] on the device of ``labels``; None: no weights.

    Args:
        weights: "balanced" weighs class k by N / (K·Nₖ), so that all classes have the same total weight; or one number
            per class, in the order of the classes.
        labels: labels of the training images.

    Raises:
        UserError: the number of weights is not that of the classes.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        counts = torch.bincount(labels, minlength=num_classes).clamp(min=1)
        return (len(labels) / (num_classes * counts)).float()
    if len(weights) != num_classes:
        raise UserError(
            f"--class-weights: expected one number for each of the {num_classes} classes, got {len(weights)}"
        )
    return torch.tensor(weights, dtype=torch.float32, device=labels.device)
