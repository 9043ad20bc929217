"""Losses: pure functions of tensors, apart from the loops that use them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def q_loss(q: Tensor, actions: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Huber loss of Q-learning (Mnih et al. 2015).

    Args:
        q: [N, A].
        actions: int64 [N], those taken.
        targets: [N], constants, as from :func:`automl_ext.td_targets`.
        weights: [N], of importance sampling; None: all 1.

    Returns:
        the weighted mean, and each transition's \\|δ\\|, detached [N].
    """
    chosen = q.gather(1, actions.unsqueeze(1)).squeeze(1)
    if weights is None:
        loss = F.smooth_l1_loss(chosen, targets)
    else:
        loss = (weights * F.smooth_l1_loss(chosen, targets, reduction="none")).mean()
    return loss, (chosen.detach() - targets).abs()


def q_loss_gradient(
    q: Tensor, actions: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`q_loss`, and its gradient with respect to ``q`` [N, A], written out: δ clipped to ±1."""
    chosen = q.gather(1, actions.unsqueeze(1)).squeeze(1)
    loss, delta = F.smooth_l1_loss(chosen, targets, reduction="none"), chosen - targets
    clipped = delta.clamp(-1, 1)
    if weights is not None:
        loss, clipped = loss * weights, clipped * weights
    gradient = torch.zeros_like(q).scatter_(1, actions.unsqueeze(1), (clipped / len(q)).unsqueeze(1))
    return loss.mean(), delta.abs(), gradient


def categorical_loss(
    logits: Tensor, actions: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """C51's loss, the divergence KL(target ‖ p) (Bellemare et al. 2017, section 4.1).

    Args:
        logits: [N, A, atoms].
        actions: int64 [N], those taken.
        targets: [N, atoms], constants, as from :func:`automl_ext.categorical_projection`.
        weights: [N], of importance sampling; None: all 1.

    Returns:
        the weighted mean, and each transition's divergence, detached [N]: Rainbow's priorities.
    """
    log_p = take_action(logits, actions).log_softmax(-1)
    divergence = F.kl_div(log_p, targets, reduction="none").sum(-1)
    loss = divergence.mean() if weights is None else (weights * divergence).mean()
    return loss, divergence.detach()


def take_action(x: Tensor, actions: Tensor) -> Tensor:
    """Each row's entry of its action: [N, A, atoms] and [N] → [N, atoms]."""
    return x.gather(1, actions.view(-1, 1, 1).expand(-1, 1, x.shape[-1])).squeeze(1)
