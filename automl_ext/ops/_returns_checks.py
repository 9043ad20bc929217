"""Argument checks shared by the functions of the returns family."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from automl_ext.ops._checks import (
    autocast_enabled,
    broadcasts,
    check_dim,
    check_float_tensor,
    check_number,
    is_dense,
    promoted,
    shown,
    wrong_device,
    wrong_type,
)

FLAGS = ("terminated", "truncated", "valid")


def raise_unlike(op: str, name: str, x: object, rewards: Tensor, flag: bool) -> None:
    """Raise the error that says how x differs from rewards."""
    dtype = torch.bool if flag else rewards.dtype
    if not isinstance(x, Tensor) or x.dtype != dtype or not is_dense(x):
        raise wrong_type(x, name, op, dtype, "" if flag else " like rewards")
    if x.shape != rewards.shape:
        expected = f"the shape of rewards {tuple(rewards.shape)}"
        raise ValueError(f"{op}: {name}: expected {expected}, got {tuple(x.shape)}")
    raise wrong_device(x, name, op, rewards)


def check_alike(
    op: str,
    names: tuple[str, ...],
    floats: tuple[Any, ...],
    flags: tuple[Any, ...],
    discounts: object = None,
    optional: int = 1,
) -> tuple[Any, ...]:
    """Check that all tensors have the shape and device of rewards, the floats its dtype, and the flags dtype bool.

    Under autocast, floats of several dtypes are promoted: a critic has bfloat16 values and an environment float32
    rewards.

    Args:
        op: name of the public function, for error messages.
        names: names of ``floats``.
        floats: the float tensors; rewards comes first.
        flags: terminated, truncated and valid.
        discounts: checked like ``floats``, or None.
        optional: how many flags, counted from the last one, may be None. With discounts, all flags may be None.

    Returns:
        ``floats`` and the discounts, promoted under autocast.
    """
    if discounts is not None:
        return check_alike(op, (*names, "discounts"), (*floats, discounts), flags, optional=3)[:-1]
    rewards = floats[0]
    check_float_tensor(rewards, "rewards", op)
    shape, dtype, device = rewards.shape, rewards.dtype, rewards.device

    def matches_rewards(x: object, dtype: torch.dtype) -> bool:
        return isinstance(x, Tensor) and is_dense(x) and x.dtype == dtype and x.shape == shape and x.device == device

    for name, x in zip(names, floats, strict=True):
        if not matches_rewards(x, dtype):
            differs = isinstance(x, Tensor) and x.is_floating_point() and x.dtype != dtype
            if differs and autocast_enabled(rewards):
                return check_alike(op, names, promoted(floats), flags, optional=optional)
            raise_unlike(op, name, x, rewards, flag=False)
    for i, x in enumerate(flags):
        if x is None and i >= 3 - optional:
            continue
        if not matches_rewards(x, torch.bool):
            raise_unlike(op, FLAGS[i], x, rewards, flag=True)
    return (*floats, None)


def check_rate(value: Any, name: str, op: str, rewards: Tensor) -> float | Tensor:
    """Return gamma or lambda: a number in [0, 1], or a tensor, expanded to the shape of rewards."""
    if not isinstance(value, Tensor):
        return check_number(value, name, op, 0, 1)
    if value.is_floating_point() and autocast_enabled(rewards):
        value = value.to(rewards.dtype)
    if value.dtype != rewards.dtype or not is_dense(value):
        raise wrong_type(value, name, op, rewards.dtype, " like rewards")
    if value.device != rewards.device:
        raise wrong_device(value, name, op, rewards)
    if not broadcasts(value, rewards.shape):
        expected = f"a shape that broadcasts to that of rewards {tuple(rewards.shape)}"
        raise ValueError(f"{op}: {name}: expected {expected}, got {tuple(value.shape)}")
    expanded: Tensor = value.expand(rewards.shape)
    return expanded


def carries(op: str, invalid: object) -> bool:
    """Return whether the argument ``invalid`` is "carry"."""
    if invalid == "cut":
        return False
    if invalid != "carry":
        raise ValueError(f'{op}: invalid: expected "cut" or "carry", got {shown(invalid)}')
    return True


def check_time_dim(op: str, time_dim: int, rewards: Tensor) -> int:
    """Return ``time_dim`` as a non-negative index."""
    if rewards.dim() == 0:
        raise ValueError(f"{op}: rewards: expected at least the time dim, got a 0-dimensional tensor")
    return check_dim(time_dim, rewards.dim(), op, "time_dim")


def time_first(dim: int, *given: Tensor | float | None) -> tuple[Any, ...]:
    """Return the tensors with dim ``dim``, the time, moved to the front, and other objects unchanged."""
    return given if dim == 0 else tuple(x.movedim(dim, 0) if isinstance(x, Tensor) else x for x in given)


def time_back(dim: int, x: Tensor) -> Tensor:
    """Return x with its first dim, the time, moved back to ``dim``."""
    return x if dim == 0 else x.movedim(0, dim)
