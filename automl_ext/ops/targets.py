"""Q-learning targets: TD targets (plain and double) and the categorical projection of C51, both detached.

``terminated`` is a bool tensor; next-state values of terminated steps are never read. Float tensors are float64,
float32, bfloat16 or float16 with any strides. Half precision is computed in float32.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops import _targets_reference as reference
from automl_ext.ops._checks import (
    check_float_tensor,
    check_number,
    is_dense,
    promoted,
    shown,
    wrong_device,
    wrong_type,
)


def _check_tensor(op: str, name: str, x: object, dtype: torch.dtype, shape: torch.Size, like: Tensor) -> None:
    """Check that x is a dense tensor of this dtype and shape on the device of ``like``."""
    if not isinstance(x, Tensor) or x.dtype != dtype or not is_dense(x):
        raise wrong_type(x, name, op, dtype)
    if x.shape != shape:
        raise ValueError(f"{op}: {name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    if x.device != like.device:
        raise wrong_device(x, name, op, like)


def _check_transitions(
    op: str, name: str, next_state: Tensor, rewards: Tensor, terminated: Tensor, discounts: Tensor | float
) -> None:
    """Check the other arguments against ``next_state``, [N, actions] or [N, atoms], whose argument name is ``name``."""
    check_float_tensor(next_state, name, op)
    if next_state.dim() == 0 or next_state.shape[-1] == 0:
        raise ValueError(f"{op}: {name}: expected a non-empty last dim, got shape {tuple(next_state.shape)}")
    shape = next_state.shape[:-1]
    _check_tensor(op, "rewards", rewards, next_state.dtype, shape, next_state)
    _check_tensor(op, "terminated", terminated, torch.bool, shape, next_state)
    if isinstance(discounts, Tensor):
        _check_tensor(op, "discounts", discounts, next_state.dtype, shape, next_state)
    else:
        check_number(discounts, "discounts", op, 0, 1)


def td_targets(
    rewards: Tensor,
    next_q: Tensor,
    terminated: Tensor,
    discounts: Tensor | float,
    *,
    next_q_online: Tensor | None = None,
) -> Tensor:
    """Compute Q-learning targets r + d (1 - terminated) max_a Q(s', a).

    With ``next_q_online``, the action is its argmax (double Q-learning, van Hasselt et al. 2016, eq. 4). With the
    returns and discounts of :func:`n_step_returns` as ``rewards`` and ``discounts``, these are n-step targets.

    Args:
        rewards: r, [N].
        next_q: [N, A], Q(s', .) of the target network.
        terminated: bool [N].
        discounts: d, a number in [0, 1] or a tensor [N].
        next_q_online: [N, A], Q(s', .) of the online network.

    Returns:
        Targets, [N], detached.

    Raises:
        TypeError: an argument is not a tensor or has the wrong dtype.
        ValueError: shapes or devices differ, there are no actions, or ``discounts`` is out of range.
    """
    if _in_range(discounts) and _native.calls_directly(next_q):
        per_step, gamma = _split(discounts)
        try:
            direct: Tensor = _native.autograd.td_targets(rewards, next_q, terminated, per_step, next_q_online, gamma)
            return direct
        except Exception:
            pass  # the checks below name the argument; an error of the kernel itself comes again
    op = "td_targets"
    if getattr(rewards, "dtype", None) is not getattr(next_q, "dtype", None):  # under autocast: float32 and bfloat16
        rewards, next_q, next_q_online, discounts = promoted((rewards, next_q, next_q_online, discounts))
    _check_transitions(op, "next_q", next_q, rewards, terminated, discounts)
    if next_q_online is not None:
        _check_tensor(op, "next_q_online", next_q_online, next_q.dtype, next_q.shape, next_q)
    per_step, gamma = _split(discounts)
    if _native.use_native(next_q):
        targets: Tensor = torch.ops.automl_ext.td_targets(rewards, next_q, terminated, per_step, next_q_online, gamma)
        return targets
    return reference.td_targets(rewards, next_q, terminated, per_step, next_q_online, gamma)


def _in_range(discounts: object) -> bool:
    """Return whether discounts are a number in [0, 1], or a tensor, whose values are not checked."""
    return isinstance(discounts, Tensor) or (type(discounts) in (float, int) and 0 <= discounts <= 1)  # type: ignore[operator]


def _split(discounts: Tensor | float) -> tuple[Tensor | None, float]:
    """Return the tensor of discounts and 1, or None and the number."""
    return (discounts, 1.0) if isinstance(discounts, Tensor) else (None, float(discounts))


def categorical_projection(
    next_probs: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    discounts: Tensor | float,
    v_min: float,
    v_max: float,
) -> Tensor:
    """Project r + d (1 - terminated) z back onto the atoms z (C51, Bellemare et al. 2017, algorithm 1).

    Positions on the grid are computed in float64. An atom that falls on the grid keeps all its mass, and the sum of
    each row is that of the row of ``next_probs``.

    Args:
        next_probs: [N, atoms], distribution of the next state over the atoms z = linspace(v_min, v_max, atoms).
        rewards: r, [N].
        terminated: bool [N].
        discounts: d, a number in [0, 1] or a tensor [N] (as from :func:`n_step_returns`).
        v_min, v_max: the lowest and highest atom.

    Returns:
        The projected distribution, [N, atoms], detached. A row with a NaN in its inputs is NaN.

    Raises:
        TypeError: an argument is not a tensor or has the wrong dtype.
        ValueError: shapes or devices differ, there are fewer than two atoms, v_min >= v_max, or ``discounts`` is out of
            range.
    """
    plain = type(v_min) is float and type(v_max) is float and sys.float_info.min < v_max - v_min < math.inf
    if plain and _in_range(discounts) and _native.calls_directly(next_probs):
        per_step, gamma = _split(discounts)
        try:
            direct: Tensor = _native.autograd.categorical_projection(
                next_probs, rewards, terminated, per_step, gamma, v_min, v_max
            )
            return direct
        except Exception:
            pass  # as in td_targets
    op = "categorical_projection"
    if getattr(rewards, "dtype", None) is not getattr(next_probs, "dtype", None):
        next_probs, rewards, discounts = promoted((next_probs, rewards, discounts))
    _check_transitions(op, "next_probs", next_probs, rewards, terminated, discounts)
    if next_probs.shape[-1] < 2:
        raise ValueError(f"{op}: next_probs: expected at least 2 atoms, got {next_probs.shape[-1]}")
    v_min = check_number(v_min, "v_min", op, -math.inf, math.inf)
    v_max = check_number(v_max, "v_max", op, -math.inf, math.inf)
    if not (v_min < v_max and math.isfinite(v_max - v_min) and v_max - v_min > sys.float_info.min):
        raise ValueError(f"{op}: v_max: expected a number above v_min = {v_min!r}, got {shown(v_max)}")
    per_step, gamma = _split(discounts)
    if _native.use_native(next_probs):
        native = torch.ops.automl_ext.categorical_projection
        projected: Tensor = native(next_probs, rewards, terminated, per_step, gamma, v_min, v_max)
        return projected
    return reference.categorical_projection(next_probs, rewards, terminated, per_step, gamma, v_min, v_max)
