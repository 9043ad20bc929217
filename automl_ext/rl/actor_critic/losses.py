"""Losses of the actor-critic algorithms: pure functions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """Compute −E[A log π(a|s)], the policy-gradient loss (Williams 1992; Mnih et al. 2016, section 4).

    Args:
        log_probs: log π(a|s), [N].
        advantages: A(s, a), [N]; treated as constants.
        weights: weights of the steps, [N]. They sum to 1, are 0 at invalid steps and equal at all valid steps.
    """
    return -torch.dot(log_probs, advantages.detach() * weights)


def value_loss(values: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """Compute E[(G − V(s))²] over [N] steps; the returns G are treated as constants."""
    return torch.dot((returns.detach() - values).square(), weights)


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, weights: Tensor, clip: float
) -> Tensor:
    """Compute −E[min(r A, clip(r, 1 − ε, 1 + ε) A)] with r = π(a|s) / π_old(a|s) (Schulman et al. 2017, eq. 7).

    Args:
        log_probs: log π(a|s), [N].
        old_log_probs: log π_old(a|s) of the policy that acted, [N]; constants.
        advantages: A(s, a), [N]; constants.
        weights: weights of the steps, [N], with sum 1.
        clip: ε, the largest change of the ratio r from which the policy still gains.
    """
    ratio = (log_probs - old_log_probs).exp()
    return -torch.dot(torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), weights)


def clipped_surrogate_gradient(
    log_probs: np.ndarray, old_log_probs: np.ndarray, advantages: np.ndarray, clip: float, total: int | None = None
) -> tuple[float, np.ndarray]:
    """Compute :func:`clipped_surrogate` for equal weights, and its gradient with respect to ``log_probs``, in NumPy.

    Args:
        total: number of steps over which the gradient is averaged, of which these are a part; None: N.

    Returns:
        The loss of these steps, and the gradient [N]: −r A / total where the unclipped term is the smaller one, else 0.
    """
    ratio = np.exp(log_probs - old_log_probs)
    gain, clipped = ratio * advantages, ratio.clip(1 - clip, 1 + clip) * advantages
    loss = -float(np.minimum(gain, clipped).mean())
    return loss, np.where(gain <= clipped, gain, 0) * (-1 / (total or len(gain)))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, weights: Tensor, clip: float) -> Tensor:
    """Compute E[max((G − V)², (G − V_clipped)²)], where V_clipped is V within ±``clip`` of the old values.

    The published code of PPO has this loss; the paper does not describe it. All tensors are [N].
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return torch.dot(torch.maximum((returns - values).square(), (returns - clipped).square()), weights)
