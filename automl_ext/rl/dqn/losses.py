"""Losses of Q-learning: pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def q_loss(q: Tensor, actions: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute the Huber loss of Q-learning (Mnih et al. 2015).

    Args:
        q: action values, [N, A].
        actions: the actions taken, int64 [N].
        targets: [N], constants, as from :func:`automl_ext.td_targets`.
        weights: importance-sampling weights, [N]; None: all 1.

    Returns:
        The weighted mean loss, and the absolute TD error \\|δ\\| of each transition, detached [N].
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
    """Compute :func:`q_loss` and its gradient with respect to ``q``, without autograd.

    Returns:
        The results of :func:`q_loss`, and the gradient [N, A]: δ clipped to ±1 at the action taken, 0 elsewhere.
    """
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
    """Compute the loss of C51, KL(target ‖ p) (Bellemare et al. 2017, section 4.1).

    Args:
        logits: [N, A, atoms].
        actions: the actions taken, int64 [N].
        targets: target distributions, [N, atoms], constants, as from :func:`automl_ext.categorical_projection`.
        weights: importance-sampling weights, [N]; None: all 1.

    Returns:
        The weighted mean loss, and the divergence of each transition, detached [N]. Rainbow uses the divergences as
        priorities.
    """
    log_p = take_action(logits, actions).log_softmax(-1)
    divergence = F.kl_div(log_p, targets, reduction="none").sum(-1)
    loss = divergence.mean() if weights is None else (weights * divergence).mean()
    return loss, divergence.detach()


def take_action(x: Tensor, actions: Tensor) -> Tensor:
    """Select the entry of each row's action: x [N, A, atoms], actions int64 [N] → [N, atoms]."""
    return x.gather(1, actions.view(-1, 1, 1).expand(-1, 1, x.shape[-1])).squeeze(1)
