"""PyTorch references of the Q-learning targets, with the arguments of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from automl_ext.ops._checks import most_precise, wide


def td_targets(
    rewards: Tensor,
    next_q: Tensor,
    terminated: Tensor,
    discounts: Tensor | None,
    next_q_online: Tensor | None,
    gamma: float,
) -> Tensor:
    """Compute TD targets; see :func:`automl_ext.td_targets`. Without ``discounts``, ``gamma`` is the discount."""
    q = wide(next_q.detach())
    if next_q_online is None:
        best = q.amax(-1)
    else:
        best = q.gather(-1, next_q_online.detach().argmax(-1, keepdim=True)).squeeze(-1)
    discount = gamma if discounts is None else torch.where(terminated, 0, wide(discounts.detach()))
    return (wide(rewards.detach()) + discount * torch.where(terminated, 0, best)).to(rewards.dtype)


def categorical_projection(
    next_probs: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    discounts: Tensor | None,
    gamma: float,
    v_min: float,
    v_max: float,
) -> Tensor:
    """Project onto the atoms; see :func:`automl_ext.categorical_projection`. ``discounts`` None: ``gamma``."""
    atoms = next_probs.shape[-1]
    p, r = most_precise(next_probs.detach()), most_precise(rewards.detach())
    g = torch.full_like(r, gamma) if discounts is None else most_precise(discounts.detach())
    g = torch.where(terminated, 0, g).unsqueeze(-1)
    # Only the sum of the next distribution matters at a terminated step; a sum that is not finite counts as 1.
    not_finite = terminated & ~p.sum(-1).isfinite()
    p = torch.where(not_finite.unsqueeze(-1), 1 / atoms, p)
    support = torch.linspace(v_min, v_max, atoms, dtype=p.dtype, device=p.device)
    returns = (r.unsqueeze(-1) + g * support).clamp(v_min, v_max)
    position = ((returns - v_min) * ((atoms - 1) / (v_max - v_min))).clamp(0, atoms - 1)
    # At most atoms - 2, so that there is an upper neighbor; a position on the last atom gives it all the mass.
    lower = position.nan_to_num().floor().clamp(max=atoms - 2)
    to_upper = p * (position - lower)
    index = lower.long()
    out = torch.zeros_like(p).scatter_add(-1, index, p - to_upper).scatter_add(-1, index + 1, to_upper)
    is_nan = (position.isnan() | ~p.isfinite()).any(-1, keepdim=True)
    return torch.where(is_nan, torch.nan, out).to(next_probs.dtype)
