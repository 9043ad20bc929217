"""Terms of policy-gradient losses: log-probabilities of categorical actions, and PPO's clipped surrogate."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import (
    autocast_enabled,
    check_clip,
    check_float_tensor,
    describe,
    is_dense,
    promoted,
    wrong_device,
    wrong_type,
)


def categorical_log_probs(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log π(a) and the entropy of categorical distributions, in one pass over the logits.

    As ``torch.distributions.Categorical(logits=logits)`` with ``log_prob(actions)`` and ``entropy()``, except that an
    action with a logit of −∞ adds 0 to the entropy.

    Args:
        logits: [..., n], n ≥ 1.
        actions: int64 [...], in 0 … n − 1. On a GPU, and in compiled code, other values are not detected.

    Returns:
        log π(a), in nats, [...], and the entropies in nats, [...].

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, or an action outside the range.
    """
    if _use_kernel(logits, actions):
        try:
            log_probs, entropy = torch.ops.automl_ext.categorical_log_probs.default(logits, actions)
            return log_probs, entropy
        except Exception:
            _check_categorical(logits, actions)
            raise
    _check_categorical(logits, actions)
    if _native.use_native(logits) and logits.device.type == "cpu":
        log_probs, entropy = torch.ops.automl_ext.categorical_log_probs.default(logits, actions)
        return log_probs, entropy
    return _categorical_reference(logits, actions)


def _use_kernel(*tensors: object) -> bool:
    """Return whether the kernel takes the tensors as they are. It checks the rest itself."""
    for x in tensors:
        if not isinstance(x, Tensor) or x.device.type != "cpu" or not is_dense(x):
            return False
    first = tensors[0]
    assert isinstance(first, Tensor)
    return not autocast_enabled(first) and _native.use_native(first)


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


def _categorical_reference(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logs = wide.log_softmax(-1)
    entropy = -torch.where(logs == -torch.inf, 0, logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
    log_probs = logs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return log_probs.to(logits.dtype), entropy.to(logits.dtype)


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Compute min(r A, clip(r, 1 − ε, 1 + ε) A) with r = π(a|s) / π_old(a|s) (Schulman et al. 2017, equation 7).

    The gradient with respect to ``log_probs`` is r A where the first term is not the larger one, else 0.

    Args:
        log_probs: log π(a|s), of any shape.
        old_log_probs: log π_old(a|s) of the policy that acted, of the same shape. A constant: it has no gradient.
        advantages: A(s, a), of the same shape. A constant.
        clip: ε > 0, the largest change of the ratio r from which the policy still gains.

    Returns:
        The objective of each step, to be maximized, in the shape of ``log_probs``.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, or ``clip`` is not positive.
    """
    if _use_kernel(log_probs, old_log_probs, advantages):
        try:
            y: Tensor = torch.ops.automl_ext.clipped_surrogate.default(log_probs, old_log_probs, advantages, clip)
            return y
        except Exception:
            _check_surrogate(log_probs, old_log_probs, advantages, clip)
            raise
    log_probs, old_log_probs, advantages = promoted((log_probs, old_log_probs, advantages))
    clip = _check_surrogate(log_probs, old_log_probs, advantages, clip)
    if _native.use_native(log_probs) and log_probs.device.type == "cpu":
        y = torch.ops.automl_ext.clipped_surrogate.default(log_probs, old_log_probs, advantages, clip)
        return y
    return _surrogate_reference(log_probs, old_log_probs.detach(), advantages.detach(), clip)


def _check_surrogate(log_probs: object, old_log_probs: object, advantages: object, clip: object) -> float:
    """Raise the error for invalid arguments of :func:`clipped_surrogate`; return ``clip`` as a float."""
    op = "clipped_surrogate"
    check_float_tensor(log_probs, "log_probs", op)
    log_probs = cast(Tensor, log_probs)
    for name, value in (("old_log_probs", old_log_probs), ("advantages", advantages)):
        check_float_tensor(value, name, op)
        x = cast(Tensor, value)
        if x.device != log_probs.device:
            raise wrong_device(x, name, op, log_probs)
        if x.dtype != log_probs.dtype or x.shape != log_probs.shape:
            like = describe(log_probs)
            raise ValueError(f"{op}: {name}: expected a tensor like log_probs ({like}), got {describe(x)}")
    return min(check_clip(clip, "clip", op), 1e30)  # as good as infinite, and a float32


def _surrogate_reference(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    wide = [x if x.dtype == torch.float64 else x.float() for x in (log_probs, old_log_probs, advantages)]
    ratio = (wide[0] - wide[1]).exp()
    return torch.minimum(ratio * wide[2], ratio.clamp(1 - clip, 1 + clip) * wide[2]).to(log_probs.dtype)
