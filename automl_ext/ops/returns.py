"""Returns, advantages and targets of reinforcement learning, over time-major [T, B] sequences.

``rewards[t]`` follows the action at t, ``values[t]`` = V(s_t), and ``next_values[t]`` = V'_t is the value of
the *true* next observation (an episode's final one, not the first of the episode after). ``terminated``,
``truncated`` and ``valid`` are bool tensors; a step that is both terminated and truncated is terminated.

An episode is *cut* after step t (cut_t = 1, c_t = 0) where it is terminated or truncated, at t = T-1, and
where ``valid[t + 1]`` is False. A cut that is no termination bootstraps from V'_t; a terminated step's V' is
never read. Below g_t = gamma (1 - terminated_t). Steps with ``valid`` False (Gymnasium's NEXT_STEP
autoreset makes one after each episode) have advantage 0, a return equal to their value (0 where there are no
values) and gradient 0, and reach no other step, whatever they hold.

All float tensors have one shape, dtype (float64, float32, bfloat16 or float16) and device; the flags have the
same shape. Any shape with a time dim works, any strides, and outputs have the inputs' shape. half and
bfloat16 compute in float32. The outputs of :func:`vtrace` and :func:`retrace` are targets: detached.
Those of the others have gradients to every float tensor.

All functions raise TypeError for what is no tensor or has the wrong dtype, ValueError for differing shapes or
devices and numbers out of range, and IndexError for a ``time_dim`` that does not exist.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops import _returns_reference as reference
from automl_ext.ops._checks import (
    check_clip,
    check_dim,
    check_float_tensor,
    check_number,
    describe,
    is_dense,
    shown,
    wrong_device,
    wrong_type,
)

native = torch.ops.automl_ext
FLAGS = ("terminated", "truncated", "valid")


def _op(name: str, tensor: Tensor) -> Any:
    return getattr(native if _native.use_native(tensor) else reference, name)


def _checked_below(rewards: object, time_dim: object) -> bool:
    """Whether the compiled op can be called at once: what it refuses, these functions then refuse in their words."""
    return (
        isinstance(rewards, Tensor)
        and type(time_dim) is int
        and time_dim == 0  # else the dims are moved here
        and not torch.compiler.is_compiling()
        and _native.use_native(rewards)
    )


def _raise_unlike(op: str, name: str, x: object, rewards: Tensor, flag: bool) -> None:
    """Say why x does not go with rewards."""
    dtype = torch.bool if flag else rewards.dtype
    if not isinstance(x, Tensor) or x.dtype != dtype or not is_dense(x):
        raise wrong_type(x, name, op, dtype, "" if flag else " like rewards")
    if x.shape != rewards.shape:
        expected = f"the shape of rewards {tuple(rewards.shape)}"
        raise ValueError(f"{op}: {name}: expected {expected}, got {tuple(x.shape)}")
    raise wrong_device(x, name, op, rewards)


def _check_alike(
    op: str, names: tuple[str, ...], floats: tuple[Any, ...], flags: tuple[Any, ...], optional: int = 1
) -> None:
    """All of rewards' shape and device (it comes first), the floats of its dtype, the flags bool.

    flags: terminated, truncated, valid; the last ``optional`` of them may be None.
    """
    rewards = floats[0]
    check_float_tensor(rewards, "rewards", op)
    shape, dtype, device = rewards.shape, rewards.dtype, rewards.device

    def goes_with_rewards(x: object, dtype: torch.dtype) -> bool:
        return isinstance(x, Tensor) and is_dense(x) and x.dtype == dtype and x.shape == shape and x.device == device

    for name, x in zip(names, floats, strict=True):
        if not goes_with_rewards(x, dtype):
            _raise_unlike(op, name, x, rewards, flag=False)
    for i, x in enumerate(flags):
        if x is None and i >= 3 - optional:
            continue
        if not goes_with_rewards(x, torch.bool):
            _raise_unlike(op, FLAGS[i], x, rewards, flag=True)


def _check_time_dim(op: str, time_dim: int, rewards: Tensor) -> int:
    if rewards.dim() == 0:
        raise ValueError(f"{op}: rewards: expected at least the time dim, got a 0-dimensional tensor")
    return check_dim(time_dim, rewards.dim(), op, "time_dim")


def _moved(dim: int, *tensors: Tensor | None) -> tuple[Any, ...]:
    """Time first."""
    return tensors if dim == 0 else tuple(None if x is None else x.movedim(dim, 0) for x in tensors)


def _back(dim: int, x: Tensor) -> Tensor:
    return x if dim == 0 else x.movedim(0, dim)


def discounted_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    *,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> Tensor:
    """Discounted sums of rewards to the end of the episode, bootstrapped where it is only cut.

    G_t = r_t + gamma c_t G_{t+1} + gamma cut_t (1 - terminated_t) V'_t. ``next_values`` is read only at cuts.

    Args:
        rewards: [T, B], as ``next_values``.
        terminated, truncated: bool [T, B].
        gamma: discount per step, in [0, 1].
        valid: bool [T, B]; None when every step is valid.
        time_dim: which dim is time.

    Returns:
        G, [T, B].
    """
    op = "discounted_returns"
    names, floats = ("rewards", "next_values"), (rewards, next_values)
    _check_alike(op, names, floats, (terminated, truncated, valid))
    dim = _check_time_dim(op, time_dim, rewards)
    gamma = check_number(gamma, "gamma", op, 0, 1)
    moved = _moved(dim, rewards, next_values, terminated, truncated, valid, None)
    # With lambda = 1 the lambda-return's V' counts at cuts only: the same formula.
    return _back(dim, _op("lambda_returns", rewards)(*moved, gamma, 1.0))


def n_step_returns(
    rewards: Tensor,
    next_values: Tensor | None,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    n: int,
    *,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns over at most n steps that never look past a cut (Watkins 1989; Sutton and Barto, eq. 7.1).

    With K = min(n, steps up to and including the first cut) and j = t + K - 1:
    G_t = sum_{k<K} gamma^k r_{t+k} + gamma^K (1 - terminated_j) V'_j.

    Args:
        rewards: [T, B].
        next_values: [T, B]; None leaves the bootstrap out, to be added later as
            ``returns + discounts * value of the observation after step last`` (replay).
        terminated, truncated: bool [T, B].
        gamma: discount per step, in [0, 1].
        n: steps, at least 1.
        valid: bool [T, B]; None when every step is valid.
        time_dim: which dim is time.

    Returns:
        returns [T, B]; discounts [T, B] = gamma^K (1 - terminated_j), without a gradient; last [T, B] = j,
        int64. At an invalid step: 0, 0 and t.
    """
    op = "n_step_returns"
    given = 1 if next_values is None else 2
    names, floats = ("rewards", "next_values")[:given], (rewards, next_values)[:given]
    _check_alike(op, names, floats, (terminated, truncated, valid))
    dim = _check_time_dim(op, time_dim, rewards)
    gamma = check_number(gamma, "gamma", op, 0, 1)
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{op}: n: expected an int, got {describe(n)}")
    if n < 1:
        raise ValueError(f"{op}: n: expected at least 1, got {shown(n)}")
    n = min(n, max(rewards.shape[dim], 1))
    moved = _moved(dim, rewards, next_values, terminated, truncated, valid)
    returns, discounts, last = _op(op, rewards)(*moved, gamma, n)
    return _back(dim, returns), _back(dim, discounts), _back(dim, last)


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
    *,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

    delta_t = r_t + g_t V'_t - V_t; A_t = delta_t + gamma lambda c_t A_{t+1}; returns = A + V.

    Args:
        rewards: [T, B], as ``values`` and ``next_values``.
        terminated, truncated: bool [T, B].
        gamma, lam: in [0, 1].
        valid: bool [T, B]; None when every step is valid.
        time_dim: which dim is time.

    Returns:
        advantages and returns, [T, B] each.
    """
    op = "gae"
    gamma, lam = check_number(gamma, "gamma", op, 0, 1), check_number(lam, "lam", op, 0, 1)
    refused: Exception | None = None
    if _checked_below(rewards, time_dim):
        try:
            both: tuple[Tensor, Tensor] = native.gae.default(
                rewards, values, next_values, terminated, truncated, valid, gamma, lam
            )
            return both
        except Exception as error:  # of any type: the dispatcher prints an argument that is no tensor, which may raise
            refused = error
    names, floats = ("rewards", "values", "next_values"), (rewards, values, next_values)
    _check_alike(op, names, floats, (terminated, truncated, valid))
    dim = _check_time_dim(op, time_dim, rewards)
    if refused is not None:  # the arguments are right: the failure was the kernel's own
        raise refused
    moved = _moved(dim, rewards, values, next_values, terminated, truncated, valid)
    advantages, returns = _op(op, rewards)(*moved, gamma, lam)
    return _back(dim, advantages), _back(dim, returns)


def lambda_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor | None,
    truncated: Tensor | None,
    gamma: float,
    lam: float,
    *,
    discounts: Tensor | None = None,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> Tensor:
    """TD(lambda) returns (Sutton and Barto, eq. 12.18; Dreamer, Hafner et al. 2020, eq. 6).

    G_t = r_t + g_t [(1 - lambda c_t) V'_t + lambda c_t G_{t+1}].

    Args:
        rewards: [T, B], as ``next_values``.
        terminated, truncated: bool [T, B]; None when no step is.
        gamma, lam: in [0, 1].
        discounts: [T, B] takes the place of g (gamma is then not used), with a gradient. ``terminated`` then
            only cuts.
        valid: bool [T, B]; None when every step is valid.
        time_dim: which dim is time.

    Returns:
        G, [T, B].
    """
    op = "lambda_returns"
    given = 2 if discounts is None else 3
    names = ("rewards", "next_values", "discounts")[:given]
    floats = (rewards, next_values, discounts)[:given]
    _check_alike(op, names, floats, (terminated, truncated, valid), optional=3)
    dim = _check_time_dim(op, time_dim, rewards)
    gamma, lam = check_number(gamma, "gamma", op, 0, 1), check_number(lam, "lam", op, 0, 1)
    moved = _moved(dim, rewards, next_values, terminated, truncated, valid, discounts)
    return _back(dim, _op(op, rewards)(*moved, gamma, lam))


def vtrace(
    log_rhos: Tensor,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float = 1.0,
    *,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> tuple[Tensor, Tensor]:
    """V-trace targets and policy-gradient advantages (IMPALA, Espeholt et al. 2018, eq. 1 and section 4.2).

    With rho = exp(log_rhos), rho' = min(rho_clip, rho) and w = lambda min(c_clip, rho):
    vs_t = V_t + rho'_t (r_t + g_t V'_t - V_t) + g_t c_t w_t (vs_{t+1} - V_{t+1}), and the advantage is
    rho'_t (r_t + g_t X_t - V_t) with X_t = V'_t at a cut, else vs_{t+1}.

    Args:
        log_rhos: [T, B], log pi(a|s) - log mu(a|s) of the policy learned and the one that acted.
        rewards, values, next_values: [T, B].
        terminated, truncated: bool [T, B].
        gamma, lam: in [0, 1].
        rho_clip, c_clip: positive; ``math.inf`` does not clip.
        valid: bool [T, B]; None when every step is valid.
        time_dim: which dim is time.

    Returns:
        vs and advantages, [T, B] each, detached.
    """
    op = "vtrace"
    names = ("rewards", "log_rhos", "values", "next_values")
    _check_alike(op, names, (rewards, log_rhos, values, next_values), (terminated, truncated, valid))
    dim = _check_time_dim(op, time_dim, rewards)
    gamma, lam = check_number(gamma, "gamma", op, 0, 1), check_number(lam, "lam", op, 0, 1)
    rho_clip, c_clip = check_clip(rho_clip, "rho_clip", op), check_clip(c_clip, "c_clip", op)
    moved = _moved(dim, log_rhos, rewards, values, next_values, terminated, truncated, valid)
    vs, advantages = _op(op, rewards)(*moved, gamma, lam, rho_clip, c_clip)
    return _back(dim, vs), _back(dim, advantages)


def retrace(
    log_rhos: Tensor,
    q_values: Tensor,
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float = 1.0,
    *,
    valid: Tensor | None = None,
    time_dim: int = 0,
) -> Tensor:
    """Retrace(lambda) targets for Q(s_t, a_t) (Munos et al. 2016, eq. 4).

    Q'_t = r_t + g_t [V'_t + c_t w_{t+1} (Q'_{t+1} - Q_{t+1})] with w = lambda min(1, exp(log_rhos)).

    Args:
        log_rhos: [T, B], log pi(a|s) - log mu(a|s) of the target policy and the one that acted.
        q_values: [T, B], Q(s_t, a_t).
        rewards: [T, B].
        next_values: [T, B], the expectation of Q(s', .) under the target policy.
        terminated, truncated: bool [T, B].
        gamma, lam: in [0, 1].
        valid: bool [T, B]; None when every step is valid.
        time_dim: which dim is time.

    Returns:
        targets, [T, B], detached.
    """
    op = "retrace"
    names = ("rewards", "log_rhos", "q_values", "next_values")
    _check_alike(op, names, (rewards, log_rhos, q_values, next_values), (terminated, truncated, valid))
    dim = _check_time_dim(op, time_dim, rewards)
    gamma, lam = check_number(gamma, "gamma", op, 0, 1), check_number(lam, "lam", op, 0, 1)
    moved = _moved(dim, log_rhos, q_values, rewards, next_values, terminated, truncated, valid)
    return _back(dim, _op(op, rewards)(*moved, gamma, lam))
