"""Losses of the actor-critic algorithms: pure functions of tensors."""

from __future__ import annotations

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
