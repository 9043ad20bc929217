"""Losses: pure functions of tensors, apart from the loops that use them."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """−E[A log π(a|s)]: its gradient is minus the policy gradient (Williams 1992; Mnih et al. 2016, section 4).

    Args:
        log_probs: log π(a|s), [N].
        advantages: how much better than expected the actions were, [N]; constants.
        weights: of the steps, [N]: alike, sum 1, but 0 for what is no transition.
    """
    return -torch.dot(log_probs, advantages.detach() * weights)


def value_loss(values: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """E[(G − V(s))²] over [N] steps, the returns G constants."""
    return torch.dot((returns.detach() - values).square(), weights)
