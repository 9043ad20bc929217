"""Checks the entries of ``result.json`` that describe a run's network. The file is not trusted."""

from __future__ import annotations

import math
from typing import Any

from automl_ext.training.files.reading import short

# Bounds on the network that a malicious file can request; far above the sizes that are trained.
LARGEST = {"in_channels": 1024, "num_classes": 100_000, "channels": 4096, "cells": 256}
LARGEST_IMAGE = 2**24  # number of values in an image


def check_network(network: Any) -> dict[str, Any]:
    """Check the entry ``network`` of a result: space, shape, image_size, mean, std and classes.

    Returns:
        Only these entries. They consist of strings, finite floats and ints, and of lists of these. The types are exact
        (no subclasses), so that ``repr`` is a Python literal.

    Raises:
        ValueError: an entry is missing or has another type or range; the message names it.
    """
    if not isinstance(network, dict):
        raise ValueError(f"network: expected an object, got {short(network)}")
    shape = check_shape(network.get("shape"))
    space = network.get("space")
    if not isinstance(space, str):
        raise ValueError(f"space: expected a string, got {short(space)}")
    classes = _list(network, "classes", shape["num_classes"])
    if not all(type(name) is str for name in classes):
        raise ValueError(f"classes: expected strings, got {short(classes)}")
    mean, std = (_floats(network, name, shape["in_channels"]) for name in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError(f"std: expected numbers above 0, got {short(std)}")
    size = _list(network, "image_size", 2)
    if not all(type(n) is int and n >= 1 for n in size) or shape["in_channels"] * math.prod(size) > LARGEST_IMAGE:
        raise ValueError(f"image_size: expected two ints of at least 1, an image of at most 2**24 values, got {size}")
    return {"space": space, "shape": shape, "image_size": size, "mean": mean, "std": std, "classes": classes}


def check_shape(shape: Any) -> dict[str, Any]:
    """Check the arguments of ``Space.build``.

    Raises:
        ValueError: a key is missing or unknown, or a value is not an int in its range.
    """
    if not isinstance(shape, dict) or shape.keys() != LARGEST.keys():
        raise ValueError(f"shape: expected {', '.join(LARGEST)}, got {short(shape)}")
    for name, largest in LARGEST.items():
        if type(shape[name]) is not int or not 1 <= shape[name] <= largest:
            raise ValueError(f"{name}: expected an int from 1 to {largest}, got {short(shape[name])}")
    return {name: shape[name] for name in LARGEST}


def _list(network: dict[str, Any], name: str, length: int) -> list[Any]:
    values = network.get(name)
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"{name}: expected a list of {length}, got {short(values)}")
    return values


def _floats(network: dict[str, Any], name: str, length: int) -> list[float]:
    values = _list(network, name, length)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise ValueError(f"{name}: expected finite numbers, got {short(values)}")
    return [float(value) for value in values]
