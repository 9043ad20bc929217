"""PyTorch references of the returns family: time first, any trailing shape, the arguments of the kernels.

Values that must be ignored (invalid steps, V' of terminated steps) are replaced by 0 with ``torch.where`` before any
arithmetic. Multiplying by a mask would turn a NaN or infinity there into a NaN, in the values or the gradients.
Half precision is computed in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _keep(x: Tensor, mask: Tensor) -> Tensor:
    """Return x where the mask is set and 0 elsewhere, in the compute dtype."""
    return torch.where(mask, _wide(x), 0)


def _ones(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def _cuts(terminated: Tensor, truncated: Tensor, valid: Tensor) -> Tensor:
    """Return the cuts: the last step of an episode, the last row, invalid steps and the steps before them."""
    next_valid = torch.cat([valid[1:], torch.zeros_like(valid[:1])])
    return terminated | truncated | ~next_valid | ~valid


def lambda_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    discounts: Tensor | None,
    gamma: float,
    lam: float,
) -> Tensor:
    """Compute TD(lambda) returns; see :func:`automl_ext.lambda_returns`."""
    if rewards.numel() == 0:
        return rewards.clone()
    terminated = ~_ones(rewards) if terminated is None else terminated
    truncated = ~_ones(rewards) if truncated is None else truncated
    valid = _ones(rewards) if valid is None else valid
    cut = _cuts(terminated, truncated, valid)
    counts = valid & cut if lam == 1 else valid  # where V' is used
    if discounts is None:
        counts = counts & ~terminated
        discounts = _keep(torch.full_like(rewards, gamma, dtype=_wide(rewards).dtype), valid & ~terminated)
    else:
        discounts = _keep(discounts, valid)
    r, v = _keep(rewards, valid), _keep(next_values, counts)
    following, out = torch.zeros_like(r[0]), []
    for t in reversed(range(r.shape[0])):
        following = r[t] + discounts[t] * torch.where(cut[t], v[t], (1 - lam) * v[t] + lam * following)
        out.append(following)
    return torch.stack(out[::-1]).to(rewards.dtype)


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor | None,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Compute generalized advantages and returns; see :func:`automl_ext.gae`."""
    if rewards.numel() == 0:
        return rewards.clone(), values.clone()
    valid = _ones(rewards) if valid is None else valid
    cut = _cuts(terminated, truncated, valid)
    v = _keep(values, valid)
    delta = _keep(rewards, valid) + gamma * _keep(next_values, valid & ~terminated) - v
    following, out = torch.zeros_like(v[0]), []
    for t in reversed(range(v.shape[0])):
        following = delta[t] + gamma * lam * torch.where(cut[t], 0, following)
        out.append(following)
    advantages = torch.stack(out[::-1])
    returns = torch.where(valid, advantages + v, _wide(values).detach())
    return advantages.to(rewards.dtype), returns.to(rewards.dtype)


def _ahead(x: Tensor, k: int) -> Tensor:
    """Return x shifted by k steps: x[t + k] at t, 0 past the end."""
    return torch.cat([x[k:], torch.zeros_like(x[:k])])


def n_step_returns(
    rewards: Tensor,
    next_values: Tensor | None,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor | None,
    gamma: float,
    n: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute n-step returns, discounts and last steps; see :func:`automl_ext.n_step_returns`."""
    steps = torch.arange(rewards.shape[0], device=rewards.device)
    last = steps.reshape(-1, *[1] * (rewards.dim() - 1)).expand_as(rewards).clone()
    if rewards.numel() == 0:
        return rewards.clone(), rewards.detach().clone(), last
    valid = _ones(rewards) if valid is None else valid
    cut = _cuts(terminated, truncated, valid)
    r = _keep(rewards, valid)
    returns, discounts = r, torch.full_like(r, gamma)
    open_ = ~cut  # whether the window that starts at t extends to t + k
    for k in range(1, min(n, r.shape[0])):
        returns = returns + torch.where(open_, gamma**k * _ahead(r, k), 0)
        discounts = torch.where(open_, gamma ** (k + 1), discounts)
        last = last + open_.long()
        open_ = open_ & ~_ahead(cut, k)
    bootstraps = valid & ~terminated.gather(0, last)
    discounts = _keep(discounts, bootstraps)
    if next_values is not None:
        v = _keep(next_values, valid & ~terminated)
        returns = returns + discounts * v.gather(0, last)
    return returns.to(rewards.dtype), discounts.to(rewards.dtype), last


def _bound(clip: float, like: Tensor) -> float:
    """Return ``clip``, or infinity where it exceeds the largest number of the dtype."""
    return clip if clip <= torch.finfo(like.dtype).max else math.inf


def vtrace(
    log_rhos: Tensor,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor | None,
    gamma: float,
    lam: float,
    rho_clip: float,
    c_clip: float,
) -> tuple[Tensor, Tensor]:
    """Compute V-trace targets and advantages; see :func:`automl_ext.vtrace`."""
    log_rhos, rewards, values, next_values = (x.detach() for x in (log_rhos, rewards, values, next_values))
    if rewards.numel() == 0:
        return values.clone(), rewards.clone()
    valid = _ones(rewards) if valid is None else valid
    cut = _cuts(terminated, truncated, valid)
    r, v, v_next = _keep(rewards, valid), _keep(values, valid), _keep(next_values, valid & ~terminated)
    ratio = _keep(log_rhos, valid).exp()
    rho, w = (ratio.clamp(max=_bound(clip, ratio)) for clip in (rho_clip, c_clip))
    w = lam * w
    delta = rho * (r + gamma * v_next - v)
    excess, out = torch.zeros_like(v[0]), []  # vs - V
    for t in reversed(range(v.shape[0])):
        excess = delta[t] + gamma * w[t] * torch.where(cut[t], 0, excess)
        out.append(excess)
    vs = v + torch.stack(out[::-1])
    advantages = _keep(rho * (r + gamma * torch.where(cut, v_next, _ahead(vs, 1)) - v), valid)
    return torch.where(valid, vs, _wide(values)).to(rewards.dtype), advantages.to(rewards.dtype)


def retrace(
    log_rhos: Tensor,
    q_values: Tensor,
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor | None,
    gamma: float,
    lam: float,
) -> Tensor:
    """Compute Retrace targets; see :func:`automl_ext.retrace`."""
    log_rhos, q_values, rewards, next_values = (x.detach() for x in (log_rhos, q_values, rewards, next_values))
    if rewards.numel() == 0:
        return q_values.clone()
    valid = _ones(rewards) if valid is None else valid
    cut = _cuts(terminated, truncated, valid)
    q, w = _keep(q_values, valid), lam * _keep(log_rhos, valid).exp().clamp(max=1)
    one_step = _keep(rewards, valid) + gamma * _keep(next_values, valid & ~terminated)
    correction, out = torch.zeros_like(q[0]), []  # w (Q' - Q) of the next step
    for t in reversed(range(q.shape[0])):
        target = one_step[t] + gamma * torch.where(cut[t], 0, correction)
        correction = w[t] * (target - q[t])
        out.append(target)
    return torch.where(valid, torch.stack(out[::-1]), _wide(q_values)).to(rewards.dtype)
