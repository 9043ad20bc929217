"""The images of a run: those that its configuration names, or own data given in Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from automl_ext.data.images import ImageData, Splits, load_images, split_images
from automl_ext.training.errors import UserError

Config = TypeVar("Config")


def prepare(config: Config, data: Any = None) -> tuple[Config, Splits]:
    """Read and split the images of a run.

    Args:
        config: with the options data, subset, image_size and image_mode.
        data: own data that take the place of ``config.data``: see :mod:`automl_ext.data.datasets`.

    Returns:
        The configuration, in which ``data`` is the checksum of own data, so that a run can only be resumed with equal
        data; and the training, validation and test parts.

    Raises:
        UserError: the data are invalid.
    """
    config, images = own_data(config, data)
    return config, load_splits(config, images)


def own_data(config: Config, data: Any) -> tuple[Config, ImageData | None]:
    """Convert own data, and name them in the configuration. Without own data, return None: nothing is read."""
    if data is None:
        return config, None
    images = _load(config, data)
    return replace(config, data=images.name), images  # type: ignore[type-var]


def load_splits(config: Any, images: ImageData | None = None) -> Splits:
    """Split ``images``, by default those that ``config.data`` names.

    Raises:
        UserError: the data are invalid, or ``config`` shifts or cuts out as much as a whole image.
    """
    splits = split_images(images or _load(config, config.data))
    side = min(splits.image_size)
    for name in ("shift", "cutout"):
        if (vars(config).get(name) or 0) >= side:
            size = " × ".join(map(str, splits.image_size))
            raise UserError(f"{name}: expected less than the side of images of {size} pixels, got {vars(config)[name]}")
    return splits


def network_shape(splits: Splits, channels: int, cells: int) -> dict[str, Any]:
    """Return the keyword arguments of ``Space.build`` for the images of ``splits``."""
    return {
        "in_channels": splits.in_channels,
        "num_classes": splits.num_classes,
        "channels": channels,
        "cells": cells,
    }


def _load(config: Any, data: Any) -> ImageData:
    return load_images(data, subset=config.subset, image_size=config.image_size, image_mode=config.image_mode)
