"""Weights of the classes in the loss, for classes of unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from automl_ext.training.checks import LARGEST
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

ClassWeights = Literal["balanced"] | tuple[float, ...] | None


def check_class_weights(weights: str | Sequence[float] | None) -> None:
    """Raise ValueError unless ``weights`` is None, "balanced" or a list or tuple of numbers above 0, at most 1e30."""
    if weights is None or weights == "balanced":
        return
    numbers = isinstance(weights, (list, tuple)) and all(isinstance(w, (int, float)) for w in weights)
    if not numbers or not weights or not all(0 < w <= LARGEST for w in weights):  # type: ignore[operator]
        raise ValueError(f"class_weights: expected balanced, or one number above 0 per class, got {short(weights)}")


def class_weights(weights: str | Sequence[float] | None, labels: Tensor, num_classes: int) -> Tensor | None:
    """Return the weights for ``F.cross_entropy``, float32 [num_classes] on the device of ``labels``; None: no weights.

    Args:
        weights: "balanced" weighs class k by N / (K·Nₖ), so that all classes have the same total weight; or one number
            per class, in the order of the classes.
        labels: of the training images.

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
