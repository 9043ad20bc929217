"""Policy gradients: log-probabilities of categorical actions, and the loss of actor-critic methods and PPO."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import (
    check_clip,
    check_float_tensor,
    check_number,
    describe,
    is_dense,
    promoted,
    readable_values,
    wide,
    wrong_device,
    wrong_type,
)


def categorical_log_probs(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log π(a) and the entropy of categorical distributions, in one pass over the logits.

    The results are ``log_prob(actions)`` and ``entropy()`` of ``torch.distributions.Categorical(logits=logits)``,
    except that an action with a logit of −∞ adds 0 to the entropy.

    Args:
        logits: [..., n], n ≥ 1.
        actions: int64 [...], in 0 … n − 1. On a GPU, and in compiled code, other values are not detected.

    Returns:
        log π(a), in nats, [...], and the entropies in nats, [...].

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, or an action outside the range.
    """
    if _calls_kernel(logits, actions):
        try:
            log_probs, entropy = _native.autograd.categorical_log_probs(logits, actions)
            return log_probs, entropy
        except Exception:
            _check_categorical(logits, actions)
            raise
    _check_categorical(logits, actions)
    if _native.use_native(logits):
        log_probs, entropy = torch.ops.automl_ext.categorical_log_probs.default(logits, actions)
        return log_probs, entropy
    return categorical_reference(logits, actions)


def _calls_kernel(first: object, *rest: object) -> bool:
    """Return whether to call the kernel without checks. It checks its arguments itself, faster."""
    return (
        _native.calls_directly(first)
        and all(getattr(x, "is_cpu", True) for x in (first, *rest))
        and not torch.is_autocast_enabled("cpu")
    )


def _check_categorical(logits: object, actions: object) -> None:
    """Raise the error for invalid arguments of :func:`categorical_log_probs`."""
    op = "categorical_log_probs"
    check_float_tensor(logits, "logits", op)
    logits = cast(Tensor, logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{op}: logits: expected shape [..., n] with n of at least 1, got {tuple(logits.shape)}")
    if not isinstance(actions, Tensor) or actions.dtype != torch.int64 or not is_dense(actions):
        raise wrong_type(actions, "actions", op, torch.int64)
    if actions.device != logits.device:
        raise wrong_device(actions, "actions", op, logits)
    if actions.shape != logits.shape[:-1]:
        raise ValueError(f"{op}: actions: expected shape {tuple(logits.shape[:-1])}, got {tuple(actions.shape)}")
    n, values = logits.shape[-1], readable_values(actions)
    if values is not None and (wrong := (values < 0) | (values >= n)).any():
        raise ValueError(f"{op}: actions: expected values in [0, {n}), got {int(values[wrong][0])}")


def categorical_reference(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute :func:`categorical_log_probs` by PyTorch's own ops."""
    logs = wide(logits).log_softmax(-1)
    entropy = -torch.where(logs == -torch.inf, 0, logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
    log_probs = logs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return log_probs.to(logits.dtype), entropy.to(logits.dtype)


def policy_gradient_loss(
    log_probs: Tensor,
    entropy: Tensor,
    values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    *,
    old_log_probs: Tensor | None = None,
    old_values: Tensor | None = None,
    weights: Tensor | None = None,
    clip: float = 0.2,
    value_clip: float = 0.2,
    vf_coef: float = 0.5,
    ent_coef: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the loss of an actor-critic and its gradient in one pass: −J + vf_coef (G − V)² − ent_coef H(π).

    J is A log π(a|s) (Mnih et al. 2016, section 4). With ``old_log_probs`` it is min(r A, clip(r, 1 − ε, 1 + ε) A) with
    r = π(a|s) / π_old(a|s) (PPO, Schulman et al. 2017, equations 7 and 9). The gradient of J is 0 where the second term
    is the smaller one.

    With ``old_values``, the error of a value is the larger one of (G − V)² and (G − V′)², where V′ is V clipped to
    ±``value_clip`` around the old value, as in the code of PPO's authors.

    Args:
        log_probs: log π(a|s), of any shape. All tensors have this shape.
        entropy: H(π(·|s)).
        values: V(s).
        advantages: A(s, a). These and the following tensors are constants: they have no gradient.
        returns: G.
        old_log_probs: log π_old(a|s) of the policy that acted.
        old_values: V(s) before the update.
        weights: the weight of each step in the loss. None: the loss is the mean over the steps, of which there must be
            at least one.
        clip: ε > 0.
        value_clip: the bound of V′ − old value, > 0; used with ``old_values``.
        vf_coef, ent_coef: weights of the terms.

    Returns:
        The loss; and without gradients, the weighted means of −J, of the errors of the values, and of H. All are 0-dim.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, a clip that is not positive, or no steps and no weights.
    """
    tensors = log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights
    numbers = clip, value_clip, vf_coef, ent_coef
    if _calls_kernel(*tensors) and all(type(x) in (float, int) for x in numbers):
        try:
            loss, policy_loss, value_loss, mean_entropy = _native.autograd.policy_gradient_loss(*tensors, *numbers)
            return loss, policy_loss, value_loss, mean_entropy
        except Exception:
            _check_loss(tensors, numbers)
            raise
    tensors = promoted(tensors)
    numbers = _check_loss(tensors, numbers)
    if _native.use_native(log_probs):
        loss, *parts = torch.ops.automl_ext.policy_gradient_loss.default(*tensors, *numbers)
    else:
        loss, *parts = loss_reference(*tensors, *numbers)
    policy_loss, value_loss, mean_entropy = (x.detach() for x in parts)
    return loss, policy_loss, value_loss, mean_entropy


_TENSORS = ("log_probs", "entropy", "values", "advantages", "returns", "old_log_probs", "old_values", "weights")


def _check_loss(tensors: tuple[Any, ...], numbers: tuple[Any, ...]) -> tuple[float, float, float, float]:
    """Raise the error for invalid arguments of :func:`policy_gradient_loss`; return the numbers as floats."""
    op = "policy_gradient_loss"
    log_probs = tensors[0]
    for name, x in zip(_TENSORS, tensors, strict=True):
        if x is None and name in _TENSORS[5:]:
            continue
        check_float_tensor(x, name, op)
        if x.device != log_probs.device:
            raise wrong_device(x, name, op, log_probs)
        if x.dtype != log_probs.dtype or x.shape != log_probs.shape:
            like = describe(log_probs)
            raise ValueError(f"{op}: {name}: expected a tensor like log_probs ({like}), got {describe(x)}")
    if tensors[-1] is None and log_probs.numel() == 0:
        raise ValueError(f"{op}: log_probs: expected at least one step without weights, got {describe(log_probs)}")
    # As good as infinite, and a float32.
    clip, value_clip = (
        min(check_clip(x, name, op), 1e30) for x, name in zip(numbers, ("clip", "value_clip"), strict=False)
    )
    vf_coef, ent_coef = (
        check_number(x, name, op, -math.inf, math.inf)
        for x, name in zip(numbers[2:], ("vf_coef", "ent_coef"), strict=True)
    )
    return clip, value_clip, vf_coef, ent_coef


def loss_reference(
    log_probs: Tensor,
    entropy: Tensor,
    values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_log_probs: Tensor | None,
    old_values: Tensor | None,
    weights: Tensor | None,
    clip: float,
    value_clip: float,
    vf_coef: float,
    ent_coef: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute :func:`policy_gradient_loss` by PyTorch's own ops."""
    dtype = log_probs.dtype
    log_probs, entropy, values = map(wide, (log_probs, entropy, values))
    a, target = (x.detach().to(log_probs.dtype) for x in (advantages, returns))
    old_log_probs, old_values, weights = (
        x if x is None else x.detach().to(log_probs.dtype) for x in (old_log_probs, old_values, weights)
    )
    gain = a * log_probs
    if old_log_probs is not None:
        ratio = (log_probs - old_log_probs).exp()
        gain = torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)
    errors = (target - values).square()
    if old_values is not None:
        near = old_values + (values - old_values).clamp(-value_clip, value_clip)
        errors = torch.maximum(errors, (target - near).square())
    policy_loss, value_loss, mean_entropy = (
        x.mean() if weights is None else (x * weights).sum() for x in (-gain, errors, entropy)
    )
    loss = policy_loss + vf_coef * value_loss
    if ent_coef:
        loss = loss - ent_coef * mean_entropy
    return loss.to(dtype), policy_loss.to(dtype), value_loss.to(dtype), mean_entropy.to(dtype)
