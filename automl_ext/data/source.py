"""Descriptions of data sets, from which images are read on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """Images that are read on demand: int64 labels ``[N]``, and ``read(indices)`` returning uint8 ``[n, C, H, W]``."""

    labels: Tensor
    read: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: the names of the classes, the images, and an official test part if there is one."""

    classes: tuple[str, ...]
    train: Part
    test: Part | None = None


def array_part(images: Tensor, labels: Tensor) -> Part:
    """Return the part of images in memory."""
    return Part(labels, lambda indices: images[indices])
