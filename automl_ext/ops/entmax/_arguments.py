"""Argument checks of the entmax family."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automl_ext.ops._checks import (
    FLOAT_DTYPES,
    INT_DTYPES,
    broadcasts,
    check_number,
    describe,
    interval,
    is_dense,
    readable_values,
    shown,
    wrong_device,
)


def check_positive_int(value: object, name: str, op: str) -> None:
    """Raise TypeError or ValueError unless ``value`` is an int of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected a positive int, got {describe(value)}")
    if value < 1:
        raise ValueError(f"{op}: {name}: expected a positive int, got {shown(value)}")


def check_device(value: Tensor, name: str, op: str, X: Tensor) -> None:
    """Raise ValueError unless ``value`` is on the device of X."""
    if value.device != X.device:
        raise wrong_device(value, name, op, X)


def check_row_parameter(
    value: object, name: str, op: str, X: Tensor, row_shape: list[int], low: float, high: float, *, above: bool = False
) -> float | Tensor:
    """Check a parameter of the rows: a number or tensor with values in [low, high], or in (low, high] with ``above``.

    A tensor must be on the device of X and broadcast to ``row_shape``.
    """
    if not isinstance(value, Tensor):
        return check_number(value, name, op, low, high, above=above)
    if value.dtype not in (*FLOAT_DTYPES, *INT_DTYPES) or not is_dense(value):
        raise TypeError(f"{op}: {name}: expected a dense real tensor or a float, got {describe(value)}")
    check_device(value, name, op, X)
    # A 0-dim X has one row.
    if not broadcasts(value, row_shape) and not (not row_shape and value.shape == (1,)):
        raise ValueError(f"{op}: {name}: expected a shape that broadcasts to {tuple(row_shape)}, got {describe(value)}")
    values = readable_values(value)
    if values is not None:
        wrong = ~((values >= low) & (values <= high) & (values < math.inf))
        if above:
            wrong |= values == low
        if wrong.any():
            worst = values[wrong].flatten()[0].item()
            raise ValueError(f"{op}: {name}: expected values in {interval(low, high, above)}, got {worst!r}")
    return value


def parameter_tensor(value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a checked row parameter as a tensor; a number is clamped to the largest of ``dtype``."""
    if isinstance(value, Tensor):
        return value.to(dtype)
    largest = torch.finfo(dtype).max
    if torch.compiler.is_compiling():
        # In torch.full, a number would be a constant of the graph: each new value would compile it again.
        return (torch.ones((), dtype=dtype, device=device) * value).clamp(max=largest)
    return torch.full((), min(value, largest), dtype=dtype, device=device)


def check_targets(X: Tensor, target: object, op: str) -> bool:
    """Check the type and shape of ``target`` for scores ``X`` [..., C].

    Returns:
        Whether it has probabilities [..., C]; if not, it has class indices, int64 [...].
    """
    if X.ndim == 0:
        raise ValueError(f"{op}: X: expected at least one dim, the classes, got {describe(X)}")
    if X.shape[-1] == 0 and X.shape[:-1].numel():
        raise ValueError(f"{op}: X: expected at least one class, got {describe(X)}")
    dense = isinstance(target, Tensor) and is_dense(target)
    soft = dense and target.dtype in FLOAT_DTYPES and target.shape == X.shape  # type: ignore[attr-defined]
    if not soft and not (dense and target.dtype == torch.int64):  # type: ignore[attr-defined]
        raise TypeError(
            f"{op}: target: expected class indices, int64 {tuple(X.shape[:-1])}, or probabilities, float "
            f"{tuple(X.shape)}, got {describe(target)}"
        )
    assert isinstance(target, Tensor)
    if not soft and target.shape != X.shape[:-1]:
        raise ValueError(
            f"{op}: target: expected shape {tuple(X.shape[:-1])} for X of shape {tuple(X.shape)}, "
            f"got {tuple(target.shape)}"
        )
    check_device(target, "target", op, X)
    return soft


def check_target_range(target: Tensor, classes: int, op: str) -> None:
    """Raise IndexError if a class index is out of range.

    Skipped while tracing and for GPU tensors, whose values cannot be read without synchronization.
    """
    values = readable_values(target)
    if values is None:
        return
    wrong = (values < 0) | (values >= classes)
    if wrong.any():
        raise IndexError(f"{op}: target: expected class indices in [0, {classes - 1}], got {values[wrong][0].item()}")
