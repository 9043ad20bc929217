"""Argument checks shared by the ops: every message names the argument, what came and what was expected."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def describe(value: object) -> str:
    """What came, for an error message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"


def autocast_enabled(x: Tensor) -> bool:
    """Whether autocast is on for x's device. (PyTorch raises when asked about meta tensors.)"""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def wrong_device(x: Tensor, name: str, op: str, like: Tensor) -> ValueError:
    """What to raise where x is on another device than ``like``, and the command that mends it."""
    mend = f"{name}.to({str(like.device)!r})"
    return ValueError(f"{op}: {name}: expected a tensor on {like.device}, got one on {x.device}; use {mend}")


def check_float_tensor(value: object, name: str, op: str) -> None:
    if not isinstance(value, Tensor) or value.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{op}: {name}: expected a float64, float32, bfloat16 or float16 tensor, got {describe(value)}")


def check_dim(dim: object, ndim: int, op: str, name: str = "dim") -> int:
    """``dim`` counted from the front. A 0-dimensional tensor has one dim, as in torch.softmax."""
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"{op}: {name}: expected an int, got {describe(dim)}")
    ndim = max(ndim, 1)
    if not -ndim <= dim < ndim:
        raise IndexError(f"{op}: {name}: expected a value in [{-ndim}, {ndim - 1}], got {dim}")
    return dim % ndim


def check_number(value: object, name: str, op: str, low: float, high: float) -> float:
    """A finite Python number in [low, high]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected a float, got {describe(value)}")
    if not (low <= value <= high and abs(value) < math.inf):  # torch.compile has no math.isfinite
        raise ValueError(f"{op}: {name}: expected a number in [{low:g}, {high:g}], got {value!r}")
    return float(value)
