"""Targets of Q-learning: TD targets (plain and double) and C51's categorical projection, both detached.

``terminated`` is bool; what a terminated step holds of its next state is never read. Tensors are float64,
float32, bfloat16 or float16, any strides; half and bfloat16 compute in float32.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_float_tensor, check_number, is_dense, shown, wrong_device, wrong_type


def _check_tensor(op: str, name: str, x: object, dtype: torch.dtype, shape: torch.Size, like: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dtype != dtype or not is_dense(x):
        raise wrong_type(x, name, op, dtype)
    if x.shape != shape:
        raise ValueError(f"{op}: {name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    if x.device != like.device:
        raise wrong_device(x, name, op, like)


def _check_transitions(
    op: str, name: str, following: Tensor, rewards: Tensor, terminated: Tensor, discounts: Tensor | float
) -> None:
    """``following`` ([N, actions] or [N, atoms], called ``name``) tells the shape of all the others."""
    check_float_tensor(following, name, op)
    if following.dim() == 0 or following.shape[-1] == 0:
        raise ValueError(f"{op}: {name}: expected a non-empty last dim, got shape {tuple(following.shape)}")
    shape = following.shape[:-1]
    _check_tensor(op, "rewards", rewards, following.dtype, shape, following)
    _check_tensor(op, "terminated", terminated, torch.bool, shape, following)
    if isinstance(discounts, Tensor):
        _check_tensor(op, "discounts", discounts, following.dtype, shape, following)
    else:
        check_number(discounts, "discounts", op, 0, 1)


def _wide(x: Tensor) -> Tensor:
    x = x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def td_targets(
    rewards: Tensor,
    next_q: Tensor,
    terminated: Tensor,
    discounts: Tensor | float,
    *,
    next_q_online: Tensor | None = None,
) -> Tensor:
    """One-step (or, with :func:`n_step_returns`' outputs, n-step) Q-learning targets.

    r + d (1 - terminated) max_a Q(s', a); with ``next_q_online`` the action is its argmax (double Q-learning,
    van Hasselt et al. 2016, eq. 4).

    Args:
        rewards: [N].
        next_q: [N, A], the target network's Q(s', .).
        terminated: bool [N].
        discounts: a number in [0, 1], or [N].
        next_q_online: [N, A], the online network's Q(s', .).

    Returns:
        targets, [N], detached.

    Raises:
        TypeError: what is no tensor, or has the wrong dtype.
        ValueError: differing shapes or devices, no actions, discounts out of range.
    """
    op = "td_targets"
    _check_transitions(op, "next_q", next_q, rewards, terminated, discounts)
    if next_q_online is not None:
        _check_tensor(op, "next_q_online", next_q_online, next_q.dtype, next_q.shape, next_q)
    per_step, gamma = _split(discounts)
    if _native.use_native(next_q):
        targets: Tensor = torch.ops.automl_ext.td_targets(rewards, next_q, terminated, per_step, next_q_online, gamma)
        return targets
    return _td_targets(rewards, next_q, terminated, per_step, next_q_online, gamma)


def _split(discounts: Tensor | float) -> tuple[Tensor | None, float]:
    """The discount of every step, or the one of all."""
    return (discounts, 1.0) if isinstance(discounts, Tensor) else (None, float(discounts))


def _td_targets(
    rewards: Tensor,
    next_q: Tensor,
    terminated: Tensor,
    discounts: Tensor | None,
    next_q_online: Tensor | None,
    gamma: float,
) -> Tensor:
    q = _wide(next_q)
    if next_q_online is None:
        best = q.amax(-1)
    else:
        best = q.gather(-1, next_q_online.detach().argmax(-1, keepdim=True)).squeeze(-1)
    discount = gamma if discounts is None else torch.where(terminated, 0, _wide(discounts))
    return (_wide(rewards) + discount * torch.where(terminated, 0, best)).to(rewards.dtype)


def categorical_projection(
    next_probs: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    discounts: Tensor | float,
    v_min: float,
    v_max: float,
) -> Tensor:
    """Project r + d (1 - terminated) z back onto the atoms z (C51, Bellemare et al. 2017, algorithm 1).

    Positions on the grid are computed in float64, and an atom that falls on the grid keeps all its mass: each
    row sums to what its row of ``next_probs`` sums to.

    Args:
        next_probs: [N, atoms], the next state's distribution over linspace(v_min, v_max, atoms).
        rewards: [N].
        terminated: bool [N].
        discounts: a number in [0, 1], or [N] (as from :func:`n_step_returns`).
        v_min, v_max: the lowest and highest atom.

    Returns:
        the projected distribution, [N, atoms], detached. A row with a NaN anywhere is NaN.

    Raises:
        TypeError: what is no tensor, or has the wrong dtype.
        ValueError: differing shapes or devices, fewer than two atoms, v_min >= v_max, discounts out of range.
    """
    op = "categorical_projection"
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
    return _categorical_projection(next_probs, rewards, terminated, per_step, gamma, v_min, v_max)


def _categorical_projection(
    next_probs: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    discounts: Tensor | None,
    gamma: float,
    v_min: float,
    v_max: float,
) -> Tensor:
    """The reference. ``discounts`` or, without, ``gamma``."""
    atoms = next_probs.shape[-1]
    p, r = next_probs.detach().double(), rewards.detach().double()
    g = torch.full_like(r, gamma) if discounts is None else discounts.detach().double()
    g = torch.where(terminated, 0, g).unsqueeze(-1)
    # Only the sum of a terminated step's next distribution counts; where that is no number, it is one.
    garbage = terminated & ~p.sum(-1).isfinite()
    p = torch.where(garbage.unsqueeze(-1), 1 / atoms, p)
    support = torch.linspace(v_min, v_max, atoms, dtype=torch.float64, device=p.device)
    returns = (r.unsqueeze(-1) + g * support).clamp(v_min, v_max)
    position = ((returns - v_min) * ((atoms - 1) / (v_max - v_min))).clamp(0, atoms - 1)
    # At most atoms - 2, so that there is an upper neighbour: on the last atom it gets all the mass.
    lower = position.nan_to_num().floor().clamp(max=atoms - 2)
    to_upper = p * (position - lower)
    index = lower.long()
    out = torch.zeros_like(p).scatter_add(-1, index, p - to_upper).scatter_add(-1, index + 1, to_upper)
    no_number = (position.isnan() | ~p.isfinite()).any(-1, keepdim=True)
    return torch.where(no_number, torch.nan, out).to(next_probs.dtype)
