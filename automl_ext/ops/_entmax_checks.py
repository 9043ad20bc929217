"""Argument checks of the entmax family."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automl_ext.ops._checks import check_number, describe, wrong_device


def check_positive_int(value: object, name: str, op: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected a positive int, got {describe(value)}")
    if value < 1:
        raise ValueError(f"{op}: {name}: expected a positive int, got {value}")


def check_device(value: Tensor, name: str, op: str, X: Tensor) -> None:
    if value.device != X.device:
        raise wrong_device(value, name, op, X)


def readable_values(t: Tensor) -> Tensor | None:
    """The values of ``t`` to check; None where they cannot be read, or only by waiting for a GPU."""
    if torch.compiler.is_compiling() or t.device.type != "cpu":
        return None
    return torch.func.debug_unwrap(t.detach())


def check_row_parameter(
    value: object, name: str, op: str, X: Tensor, row_shape: list[int], low: float, high: float
) -> float | Tensor:
    """A number in [low, high], or a tensor of such, on X's device, that broadcasts to ``row_shape``."""
    if not isinstance(value, Tensor):
        return check_number(value, name, op, low, high)
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{op}: {name}: expected a real tensor or a float, got {describe(value)}")
    check_device(value, name, op, X)
    fits = value.ndim <= len(row_shape) and all(
        given in (1, wanted) for given, wanted in zip(reversed(value.shape), reversed(row_shape), strict=False)
    )
    # A scalar X has no dims, but one row.
    if not fits and not (not row_shape and value.shape == (1,)):
        raise ValueError(f"{op}: {name}: expected a shape that broadcasts to {tuple(row_shape)}, got {describe(value)}")
    values = readable_values(value)
    if values is not None:
        wrong = ~((values >= low) & (values <= high) & (values < math.inf))
        if wrong.any():
            worst = values[wrong].flatten()[0].item()
            raise ValueError(f"{op}: {name}: expected values in [{low:g}, {high:g}], got {worst!r}")
    return value


def check_class_targets(X: Tensor, target: object, op: str) -> None:
    """``target`` [...] int64 for scores ``X`` [..., C]; the values are looked at by check_target_range."""
    if X.ndim == 0:
        raise ValueError(f"{op}: X: expected at least one dim, the classes, got {describe(X)}")
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise TypeError(f"{op}: target: expected an int64 tensor, got {describe(target)}")
    if target.shape != X.shape[:-1]:
        raise ValueError(
            f"{op}: target: expected shape {tuple(X.shape[:-1])} for X of shape {tuple(X.shape)}, "
            f"got {tuple(target.shape)}"
        )
    check_device(target, "target", op, X)


def check_target_range(target: Tensor, classes: int, op: str) -> None:
    values = readable_values(target)
    if values is None:
        return
    wrong = (values < 0) | (values >= classes)
    if wrong.any():
        raise IndexError(f"{op}: target: expected class indices in [0, {classes - 1}], got {values[wrong][0].item()}")
