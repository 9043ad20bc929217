"""PyTorch references of the returns family: time first, any trailing shape, the arguments of the kernels.

gamma and lambda may be tensors in the shape of rewards, and ``discounts`` may replace g, which the kernels do not
support. Then only the scan over time is a kernel, if there is one, and the rest runs in PyTorch with its gradients.

Values that must be ignored (invalid steps, V' of terminated steps) are replaced by 0 with ``torch.where`` before any
arithmetic. Multiplying by a mask would turn a NaN or infinity there into a NaN, in the values or the gradients.
Half precision is computed in float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import readable_values, wide


def _keep(x: Tensor, mask: Tensor) -> Tensor:
    """Return x where the mask is set and 0 elsewhere, in the compute dtype."""
    return torch.where(mask, wide(x), 0)


class _Steps(NamedTuple):
    cut: Tensor  # the last step of an episode, the last row, invalid steps and the steps before them
    live: Tensor  # where V' is used: valid, and not terminated unless there are discounts
    valid: Tensor
    g: Tensor  # the discount of V' and of the next step


def _steps(
    rewards: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    gamma: float | Tensor,
    discounts: Tensor | None,
) -> _Steps:
    none = torch.zeros_like(rewards, dtype=torch.bool)
    terminated = none if terminated is None else terminated
    truncated = none if truncated is None else truncated
    valid = ~none if valid is None else valid
    next_valid = torch.cat([valid[1:], none[:1]])
    cut = terminated | truncated | ~next_valid | ~valid
    live = valid & ~terminated if discounts is None else valid
    g = wide(torch.zeros_like(rewards)) + gamma if discounts is None else discounts
    return _Steps(cut, live, valid, _keep(g, live))


class _Carried:
    """The valid steps of each column, moved to its front in their order: then invalid steps cut and carry alike.

    A step and the run of invalid steps after it are one transition, which ends in the last step of the run, or in the
    first one with a flag.
    """

    def __init__(self, terminated: Tensor | None, truncated: Tensor | None, valid: Tensor) -> None:
        steps = torch.ones_like(valid, dtype=torch.int64).cumsum(0) - 1
        ends = torch.cat([valid[1:], torch.ones_like(valid[:1])])
        for flags in (terminated, truncated):
            ends = ends if flags is None else ends | flags
        last = torch.where(ends, steps, valid.shape[0]).flip(0).cummin(0).values.flip(0)
        self._valid, self._steps = valid, steps
        self._order = (~valid).byte().argsort(dim=0, stable=True)
        self._last = last.gather(0, self._order)

    def own(self, x: Any) -> Any:
        """Return what belongs to a step itself; numbers and None unchanged."""
        return x.gather(0, self._order) if isinstance(x, Tensor) else x

    def end(self, x: Any) -> Any:
        """Return what belongs to the end of a transition: V' and the flags."""
        return None if x is None else x.gather(0, self._last)

    def back(self, y: Tensor) -> Tensor:
        """Return results at the steps where they belong."""
        return torch.zeros_like(y).scatter(0, self._order, y)

    def index_back(self, last: Tensor) -> Tensor:
        """Return indices of moved steps as those of the ends of their transitions, and of invalid steps their own."""
        return torch.where(self._valid, self.back(self._last.gather(0, last)), self._steps)


def _scan(add: Tensor, decay: Tensor, cut: Tensor) -> Tensor:
    """Return y with y_t = add_t + decay_t y_{t+1}, and y_t = add_t at cuts."""
    decay = _keep(decay, ~cut)
    if _native.use_native(add):  # as a lambda-return with lambda = 1 and V' = 0
        y: Tensor = torch.ops.automl_ext.lambda_returns.default(
            add, torch.zeros_like(add), cut, None, None, decay, 1.0, 1.0
        )
        return y
    following, out = torch.zeros_like(add[0]), []
    for t in reversed(range(add.shape[0])):
        following = add[t] + decay[t] * torch.where(cut[t], 0, following)
        out.append(following)
    return torch.stack(out[::-1])


def _ahead(x: Tensor, k: int) -> Tensor:
    """Return x shifted by k steps: x[t + k] at t, 0 past the end."""
    return torch.cat([x[k:], torch.zeros_like(x[:k])])


def lambda_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    discounts: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor,
    carry: bool = False,
) -> Tensor:
    """Compute TD(lambda) returns; see :func:`automl_ext.lambda_returns`."""
    if rewards.numel() == 0:
        return rewards.clone()
    if carry and valid is not None:
        c = _Carried(terminated, truncated, valid)
        flags = c.end(terminated), c.end(truncated), c.own(valid)
        numbers = c.own(discounts), c.own(gamma), c.own(lam)
        return c.back(lambda_returns(c.own(rewards), c.end(next_values), *flags, *numbers))
    cut, live, valid, g = _steps(rewards, terminated, truncated, valid, gamma, discounts)
    if isinstance(lam, Tensor):
        lam = wide(lam)
    elif lam == 1:
        live = live & cut
    v = _keep(next_values, live)
    one_step = _keep(rewards, valid) + g * torch.where(cut, v, (1 - lam) * v)
    return _scan(one_step, g * lam, cut).to(rewards.dtype)


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor,
    carry: bool = False,
    discounts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute generalized advantages and returns; see :func:`automl_ext.gae`."""
    if rewards.numel() == 0:
        return rewards.clone(), values.clone()
    if carry and valid is not None:
        c = _Carried(terminated, truncated, valid)
        flags = c.end(terminated), c.end(truncated), c.own(valid)
        floats = c.own(rewards), c.own(values), c.end(next_values)
        advantages, returns = gae(*floats, *flags, c.own(gamma), c.own(lam), discounts=c.own(discounts))
        return c.back(advantages), c.back(returns)
    cut, live, valid, g = _steps(rewards, terminated, truncated, valid, gamma, discounts)
    v = _keep(values, valid)
    delta = _keep(rewards, valid) + g * _keep(next_values, live) - v
    advantages = _scan(delta, g * lam, cut)
    returns = torch.where(valid, advantages + v, wide(values).detach())
    return advantages.to(rewards.dtype), returns.to(rewards.dtype)


def n_step_returns(
    rewards: Tensor,
    next_values: Tensor | None,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    gamma: float | Tensor,
    n: int,
    carry: bool = False,
    discounts: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute n-step returns, discounts and last steps; see :func:`automl_ext.n_step_returns`."""
    steps = torch.arange(rewards.shape[0], device=rewards.device)
    last = steps.reshape(-1, *[1] * (rewards.dim() - 1)).expand_as(rewards).clone()
    if rewards.numel() == 0:
        return rewards.clone(), rewards.detach().clone(), last
    if carry and valid is not None:
        c = _Carried(terminated, truncated, valid)
        flags = c.end(terminated), c.end(truncated), c.own(valid)
        floats = c.own(rewards), c.end(next_values)
        returns, product, last = n_step_returns(*floats, *flags, c.own(gamma), n, discounts=c.own(discounts))
        return c.back(returns), c.back(product), c.index_back(last)
    cut, live, valid, g = _steps(rewards, terminated, truncated, valid, gamma, discounts)
    r = _keep(rewards, valid)
    returns, product = r, g  # product: of the discounts of the window's steps
    number = gamma if discounts is None and not isinstance(gamma, Tensor) else None
    open_ = ~cut  # whether the window that starts at t extends to t + k
    for k in range(1, min(n, r.shape[0])):
        returns = returns + torch.where(open_, (product if number is None else number**k) * _ahead(r, k), 0)
        if number is None:
            longer = product * _ahead(g, k)
        else:  # powers of the number, as the kernel rounds them
            longer = torch.where(_ahead(live, k), torch.full_like(g, number ** (k + 1)), 0)
        product = torch.where(open_, longer, product)
        last = last + open_.long()
        open_ = open_ & ~_ahead(cut, k)
        still = readable_values(open_)
        if still is not None and not still.any():  # short episodes in a long window
            break
    if next_values is not None:
        returns = returns + product * _keep(next_values, live).gather(0, last)
    return returns.to(rewards.dtype), product.to(rewards.dtype), last


def _bound(clip: float, like: Tensor) -> float:
    """Return ``clip``, or infinity where it exceeds the largest number of the dtype."""
    return clip if clip <= torch.finfo(like.dtype).max else math.inf


def _detached(*given: Tensor | float | None) -> tuple[Any, ...]:
    return tuple(x.detach() if isinstance(x, Tensor) else x for x in given)


def vtrace(
    log_rhos: Tensor,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor,
    rho_clip: float,
    c_clip: float,
    discounts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute V-trace targets and advantages; see :func:`automl_ext.vtrace`."""
    log_rhos, rewards, values, next_values = _detached(log_rhos, rewards, values, next_values)
    gamma, lam, discounts = _detached(gamma, lam, discounts)
    if rewards.numel() == 0:
        return values.clone(), rewards.clone()
    cut, live, valid, g = _steps(rewards, terminated, truncated, valid, gamma, discounts)
    r, v, v_next = _keep(rewards, valid), _keep(values, valid), _keep(next_values, live)
    ratio = _keep(log_rhos, valid).exp()
    rho, w = (ratio.clamp(max=_bound(clip, ratio)) for clip in (rho_clip, c_clip))
    excess = _scan(rho * (r + g * v_next - v), g * lam * w, cut)  # vs - V
    vs = v + excess
    advantages = _keep(rho * (r + g * torch.where(cut, v_next, _ahead(vs, 1)) - v), valid)
    return torch.where(valid, vs, wide(values)).to(rewards.dtype), advantages.to(rewards.dtype)


def retrace(
    log_rhos: Tensor,
    q_values: Tensor,
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    valid: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor,
    discounts: Tensor | None = None,
) -> Tensor:
    """Compute Retrace targets; see :func:`automl_ext.retrace`."""
    log_rhos, q_values, rewards, next_values = _detached(log_rhos, q_values, rewards, next_values)
    gamma, lam, discounts = _detached(gamma, lam, discounts)
    if rewards.numel() == 0:
        return q_values.clone()
    cut, live, valid, g = _steps(rewards, terminated, truncated, valid, gamma, discounts)
    q, w = _keep(q_values, valid), lam * _keep(log_rhos, valid).exp().clamp(max=1)
    decay = g * _ahead(w, 1)
    targets = _scan(
        _keep(rewards, valid) + g * _keep(next_values, live) - _keep(decay * _ahead(q, 1), ~cut), decay, cut
    )
    return torch.where(valid, targets, wide(q_values)).to(rewards.dtype)
