"""Losses: pure functions of tensors, apart from the loops that use them."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of x over what is ``valid`` (bool, the same shape); 0 where nothing is."""
    return torch.where(valid, x, 0.0).sum() / valid.sum().clamp(min=1)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, valid: Tensor) -> Tensor:
    """−E[A log π(a|s)]: its gradient is minus the policy gradient (Williams 1992; Mnih et al. 2016, section 4).

    Args:
        log_probs: log π(a|s), any shape, as the others.
        advantages: how much better than expected the action was; treated as constants.
        valid: bool; False where there was no transition.
    """
    return -masked_mean(advantages.detach() * log_probs, valid)


def value_loss(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """E[(G − V(s))²], the returns G treated as constants."""
    return masked_mean((returns.detach() - values).square(), valid)
