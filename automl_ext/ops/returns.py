"""Returns, advantages and targets of reinforcement learning over time-major [T, B] sequences.

``rewards[t]`` is the reward after the action at t, ``values[t]`` = V(s_t), and ``next_values[t]`` = V'_t is the
value of the *true* next observation: at the end of an episode its final observation, not the first of the next
episode. ``terminated``, ``truncated`` and ``valid`` are bool tensors. A step that is both terminated and truncated
counts as terminated.

An episode is *cut* after step t (cut_t = 1, c_t = 0) where it is terminated or truncated, at t = T-1, and where
``valid[t + 1]`` is False. A cut that is not a termination bootstraps from V'_t. V' of a terminated step is never
read. Below, g_t = gamma (1 - terminated_t).

Steps with ``valid`` False have advantage 0 and a return equal to their value, or 0 for functions without values. These
outputs have no gradient. ``invalid`` says how such steps affect the others:

- "cut" (default) is for steps that are no transitions, such as the one that Gymnasium's NEXT_STEP autoreset makes after
  each episode. They end the episode before them, and their contents affect no other step.
- "carry" is for masked tokens of a language model, between or after the tokens that the policy has chosen. A valid step
  and the run of invalid steps after it are one transition to the state after the run: the recursion passes over the run
  unchanged. V' is then that of the run's last step, and a flag in the run ends the episode. Rewards, values and
  discounts of invalid steps are not read, and may be NaN. V' of an invalid step is read only at the end of its run.

All float tensors have the same shape, dtype (float64, float32, bfloat16 or float16) and device; the flags have the
same shape. Any shape with a time dim and any strides are allowed; outputs have the shape of the inputs. Half
precision is computed in float32. The outputs of :func:`vtrace` and :func:`retrace` are targets and are detached. The
outputs of the other functions are differentiable in every float tensor. Gradients are defined for finite inputs: an
infinite discount or value can give NaN.

``gamma`` and ``lam`` are numbers in [0, 1], or tensors that broadcast to the shape of rewards, for example [B] for one
per environment. ``discounts`` [T, B] replaces g; then ``gamma`` is not used, ``terminated`` only cuts, and the flags
may be None. The values of these tensors are not checked. They take several PyTorch operations instead of one kernel,
except the discounts of :func:`discounted_returns` and :func:`lambda_returns`.

Raises (all functions):
    TypeError: an argument is not a tensor or has the wrong dtype.
    ValueError: shapes or devices differ, or a number is out of range; or ``invalid`` is neither "cut" nor "carry".
    IndexError: ``time_dim`` is out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_clip, describe, python_number, shown
from automl_ext.ops._returns_checks import (
    carries,
    check_alike,
    check_rate,
    check_time_dim,
    time_back,
    time_first,
)

native = torch.ops.automl_ext
Invalid = Literal["cut", "carry"]


def _op(name: str, rewards: Tensor, *numbers: float | Tensor) -> Any:
    """Return the compiled op or its reference: by the backend, and the reference if a number of the op is a tensor."""
    compiled = not any(isinstance(x, Tensor) for x in numbers) and _native.use_native(rewards)
    if compiled:
        return getattr(native, name)
    from automl_ext.ops import _returns_reference  # here, because most programs never need it

    return getattr(_returns_reference, name)


def _calls_directly(rewards: object, time_dim: object, *rates: object) -> bool:
    """Return whether to call the compiled op before the checks, which run only if it raises."""
    return (
        type(time_dim) is int
        and time_dim == 0  # other dims are moved first
        and all(type(x) in (float, int) and 0 <= x <= 1 for x in rates)  # type: ignore[operator]
        and _native.calls_directly(rewards)
    )


class _Failed:
    """The error of a direct call, which the checks of the arguments explain, unless the arguments are valid."""

    error: Exception | None = None

    def reraise(self, given: Sequence[object], checked: Sequence[object]) -> None:
        """Raise the error if the checks did not convert a tensor: the arguments are valid, so the kernel failed."""
        if self.error is not None and all(x is y for x, y in zip(checked, given, strict=True)):
            raise self.error


def discounted_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float | Tensor,
    *,
    discounts: Tensor | None = None,
    valid: Tensor | None = None,
    invalid: Invalid = "cut",
    time_dim: int = 0,
) -> Tensor:
    """Compute discounted sums of rewards to the end of the episode, bootstrapped at cuts.

    G_t = r_t + gamma c_t G_{t+1} + gamma cut_t (1 - terminated_t) V'_t. Here V'_t is ``next_values[t]``, read only at
    cuts. cut_t = 1 - c_t is 1 where the episode is cut after step t: where it ends, at t = T-1, and before a step that
    is not valid.

    Args:
        rewards, next_values: [T, B].
        terminated, truncated: bool [T, B]; may be None with ``discounts``.
        gamma: discount per step, in [0, 1]; a number or a tensor that broadcasts to [T, B].
        discounts: [T, B], replaces gamma (1 - terminated).
        valid: bool [T, B]; None if every step is valid.
        invalid: how steps that are not valid affect the others: "cut" ends the episode before them, "carry" skips them.
        time_dim: index of the time dimension.

    Returns:
        G, [T, B].
    """
    op = "discounted_returns"
    names, floats, flags = ("rewards", "next_values"), (rewards, next_values), (terminated, truncated, valid)
    rewards, next_values, discounts = check_alike(op, names, floats, flags, discounts)
    dim = check_time_dim(op, time_dim, rewards)
    gamma = check_rate(gamma, "gamma", op, rewards)
    carry = carries(op, invalid)
    # With lambda = 1, the lambda-return uses V' at cuts only, which gives the same formula.
    moved = time_first(dim, rewards, next_values, *flags, discounts, gamma, 1.0, carry)
    return time_back(dim, _op("lambda_returns", rewards, gamma)(*moved))


def n_step_returns(
    rewards: Tensor,
    next_values: Tensor | None,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float | Tensor,
    n: int,
    *,
    discounts: Tensor | None = None,
    valid: Tensor | None = None,
    invalid: Invalid = "cut",
    time_dim: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute n-step returns, which end at the first cut (Watkins 1989; Sutton and Barto, eq. 7.1).

    With K = min(n, steps up to and including the first cut) and j = t + K - 1:
    G_t = sum_{k<K} gamma^k r_{t+k} + gamma^K (1 - terminated_j) V'_j, with V'_j = ``next_values[j]``. Cuts are the same
    as in :func:`discounted_returns`.

    Args:
        rewards: [T, B].
        next_values: [T, B]; None omits the bootstrap. A replay adds it later: returns + discounts * (value of the
            observation after step ``last``).
        terminated, truncated: bool [T, B]; may be None with ``discounts``.
        gamma: discount per step, in [0, 1]; a number or a tensor that broadcasts to [T, B]. For a tensor, read
            gamma^k as the product over the k steps of the window.
        n: number of steps, at least 1. Invalid steps that carry do not count.
        discounts: [T, B], replaces gamma (1 - terminated).
        valid: bool [T, B]; None if every step is valid.
        invalid: how steps that are not valid affect the others: "cut" ends the episode before them, "carry" skips them.
        time_dim: index of the time dimension.

    Returns:
        returns: G, [T, B]; 0 at an invalid step.
        discounts: gamma^K (1 - terminated_j), [T, B]; 0 at an invalid step. Differentiable in tensors only.
        last: j, int64 [T, B]; t at an invalid step. With "carry", the step whose V' the window uses.
    """
    op, failed, carry = "n_step_returns", _Failed(), carries("n_step_returns", invalid)
    if discounts is None and type(n) is int and 1 <= n < 2**63 and _calls_directly(rewards, time_dim, gamma):
        try:
            three: tuple[Tensor, Tensor, Tensor] = _native.autograd.n_step_returns(
                rewards, next_values, terminated, truncated, valid, gamma, n, carry
            )
            return three
        except Exception as error:
            failed.error = error
    given = 1 if next_values is None else 2
    names, floats = ("rewards", "next_values")[:given], (rewards, next_values)[:given]
    flags = (terminated, truncated, valid)
    rewards, *rest, discounts = check_alike(op, names, floats, flags, discounts)
    next_values = rest[0] if rest else None
    dim = check_time_dim(op, time_dim, rewards)
    gamma = check_rate(gamma, "gamma", op, rewards)
    n = python_number(n)
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{op}: n: expected an int, got {describe(n)}")
    if n < 1:
        raise ValueError(f"{op}: n: expected at least 1, got {shown(n)}")
    failed.reraise(floats, (rewards, *rest))
    n = min(n, max(rewards.shape[dim], 1))
    extra = () if discounts is None else (discounts,)
    moved = time_first(dim, rewards, next_values, *flags, gamma, n, carry, *extra)
    returns, product, last = _op(op, rewards, gamma, *extra)(*moved)
    return time_back(dim, returns), time_back(dim, product), time_back(dim, last)


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor,
    *,
    discounts: Tensor | None = None,
    valid: Tensor | None = None,
    invalid: Invalid = "cut",
    time_dim: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute generalized advantage estimates (Schulman et al. 2016, eq. 16).

    delta_t = r_t + g_t V'_t - V_t; A_t = delta_t + gamma lambda c_t A_{t+1}; returns = A + V. Here V'_t is
    ``next_values[t]``, g_t is gamma (1 - terminated_t), and c_t is 0 at cuts (see :func:`discounted_returns`), else 1.

    Args:
        rewards, values, next_values: [T, B].
        terminated, truncated: bool [T, B]; may be None with ``discounts``.
        gamma, lam: discount per step and lambda, in [0, 1]; numbers or tensors that broadcast to [T, B].
        discounts: [T, B], replaces g.
        valid: bool [T, B]; None if every step is valid.
        invalid: how steps that are not valid affect the others: "cut" ends the episode before them, "carry" skips them.
        time_dim: index of the time dimension.

    Returns:
        Advantages and returns, [T, B] each.
    """
    op, failed, carry = "gae", _Failed(), carries("gae", invalid)
    if discounts is None and _calls_directly(rewards, time_dim, gamma, lam):
        try:
            both: tuple[Tensor, Tensor] = _native.autograd.gae(
                rewards, values, next_values, terminated, truncated, valid, gamma, lam, carry
            )
            return both
        except Exception as error:
            failed.error = error
    names, floats = ("rewards", "values", "next_values"), (rewards, values, next_values)
    flags = (terminated, truncated, valid)
    *checked, discounts = check_alike(op, names, floats, flags, discounts)
    rewards = checked[0]
    dim = check_time_dim(op, time_dim, rewards)
    gamma, lam = check_rate(gamma, "gamma", op, rewards), check_rate(lam, "lam", op, rewards)
    failed.reraise(floats, checked)
    extra = () if discounts is None else (discounts,)
    moved = time_first(dim, *checked, *flags, gamma, lam, carry, *extra)
    advantages, returns = _op(op, rewards, gamma, lam, *extra)(*moved)
    return time_back(dim, advantages), time_back(dim, returns)


def lambda_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor,
    *,
    discounts: Tensor | None = None,
    valid: Tensor | None = None,
    invalid: Invalid = "cut",
    time_dim: int = 0,
) -> Tensor:
    """Compute TD(lambda) returns (Sutton and Barto, eq. 12.18; Dreamer, Hafner et al. 2020, eq. 6).

    G_t = r_t + g_t [(1 - lambda c_t) V'_t + lambda c_t G_{t+1}]. V', g and c are those of :func:`gae`.

    Args:
        rewards, next_values: [T, B].
        terminated, truncated: bool [T, B]; None if no step is terminated or truncated.
        gamma, lam: discount per step and lambda, in [0, 1]; numbers or tensors that broadcast to [T, B]. If ``lam``
            is the number 1, V' is read at cuts only; if it is a tensor, at every step.
        discounts: [T, B], replaces g.
        valid: bool [T, B]; None if every step is valid.
        invalid: how steps that are not valid affect the others: "cut" ends the episode before them, "carry" skips them.
        time_dim: index of the time dimension.

    Returns:
        G, [T, B].
    """
    op, failed, carry = "lambda_returns", _Failed(), carries("lambda_returns", invalid)
    if _calls_directly(rewards, time_dim, gamma, lam):
        try:
            returns: Tensor = _native.autograd.lambda_returns(
                rewards, next_values, terminated, truncated, valid, discounts, gamma, lam, carry
            )
            return returns
        except Exception as error:
            failed.error = error
    names, floats, flags = ("rewards", "next_values"), (rewards, next_values), (terminated, truncated, valid)
    rewards, next_values, discounts = check_alike(op, names, floats, flags, discounts, optional=3)
    dim = check_time_dim(op, time_dim, rewards)
    gamma, lam = check_rate(gamma, "gamma", op, rewards), check_rate(lam, "lam", op, rewards)
    failed.reraise(floats, (rewards, next_values))
    moved = time_first(dim, rewards, next_values, *flags, discounts, gamma, lam, carry)
    return time_back(dim, _op(op, rewards, gamma, lam)(*moved))


def vtrace(
    log_rhos: Tensor,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor = 1.0,
    *,
    discounts: Tensor | None = None,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute V-trace targets and policy-gradient advantages (IMPALA, Espeholt et al. 2018, eq. 1, section 4.2).

    With rho = exp(log_rhos), rho' = min(rho_clip, rho) and w = lambda min(c_clip, rho), where w_t is the paper's c_t:
    vs_t = V_t + rho'_t (r_t + g_t V'_t - V_t) + g_t c_t w_t (vs_{t+1} - V_{t+1}), and the advantage is
    rho'_t (r_t + g_t X_t - V_t) with X_t = V'_t at a cut, else vs_{t+1}. V', g and c are those of :func:`gae`.

    Args:
        log_rhos: [T, B], log pi(a|s) - log mu(a|s) of the learned policy pi and the behavior policy mu.
        rewards, values, next_values: [T, B].
        terminated, truncated: bool [T, B]; may be None with ``discounts``.
        gamma, lam: discount per step and lambda, in [0, 1]; numbers or tensors that broadcast to [T, B].
        discounts: [T, B], replaces g.
        rho_clip, c_clip: upper bounds of the ratios, positive; ``math.inf`` means no clipping.
        valid: bool [T, B]; None if every step is valid.
        time_dim: index of the time dimension.

    Returns:
        Value targets vs and advantages, [T, B] each, detached.
    """
    op = "vtrace"
    names = ("rewards", "log_rhos", "values", "next_values")
    floats = (rewards, log_rhos, values, next_values)
    flags = (terminated, truncated, valid)
    rewards, log_rhos, values, next_values, discounts = check_alike(op, names, floats, flags, discounts)
    dim = check_time_dim(op, time_dim, rewards)
    gamma, lam = check_rate(gamma, "gamma", op, rewards), check_rate(lam, "lam", op, rewards)
    rho_clip, c_clip = check_clip(rho_clip, "rho_clip", op), check_clip(c_clip, "c_clip", op)
    extra = () if discounts is None else (discounts,)
    moved = time_first(dim, log_rhos, rewards, values, next_values, *flags, gamma, lam, rho_clip, c_clip, *extra)
    vs, advantages = _op(op, rewards, gamma, lam, *extra)(*moved)
    return time_back(dim, vs), time_back(dim, advantages)


def retrace(
    log_rhos: Tensor,
    q_values: Tensor,
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float | Tensor,
    lam: float | Tensor = 1.0,
    *,
    discounts: Tensor | None = None,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> Tensor:
    """Compute Retrace(lambda) targets for Q(s_t, a_t) (Munos et al. 2016, eq. 4).

    Q'_t = r_t + g_t [V'_t + c_t w_{t+1} (Q'_{t+1} - Q_{t+1})] with w = lambda min(1, exp(log_rhos)).
    V', g and c are those of :func:`gae`.

    Args:
        log_rhos: [T, B], log pi(a|s) - log mu(a|s) of the target policy pi and the behavior policy mu.
        q_values: [T, B], Q(s_t, a_t).
        rewards: [T, B].
        next_values: [T, B], the expectation of Q(s', .) under the target policy.
        terminated, truncated: bool [T, B]; may be None with ``discounts``.
        gamma, lam: discount per step and lambda, in [0, 1]; numbers or tensors that broadcast to [T, B].
        discounts: [T, B], replaces g.
        valid: bool [T, B]; None if every step is valid.
        time_dim: index of the time dimension.

    Returns:
        Targets, [T, B], detached.
    """
    op = "retrace"
    names = ("rewards", "log_rhos", "q_values", "next_values")
    floats = (rewards, log_rhos, q_values, next_values)
    flags = (terminated, truncated, valid)
    rewards, log_rhos, q_values, next_values, discounts = check_alike(op, names, floats, flags, discounts)
    dim = check_time_dim(op, time_dim, rewards)
    gamma, lam = check_rate(gamma, "gamma", op, rewards), check_rate(lam, "lam", op, rewards)
    extra = () if discounts is None else (discounts,)
    moved = time_first(dim, log_rhos, q_values, rewards, next_values, *flags, gamma, lam, *extra)
    return time_back(dim, _op(op, rewards, gamma, lam, *extra)(*moved))
