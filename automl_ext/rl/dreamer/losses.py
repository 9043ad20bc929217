"""Losses of Dreamer's three networks (Hafner et al. 2020, equations 6 to 8 and 10): pure functions of tensors.

Different from the paper, V(s) and the returns of s exclude r(s), the reward of s itself:
G_t = r(s_{t+1}) + γ[(1 − λ)V(s_{t+1}) + λG_{t+1}].
``reward[t]`` follows ``action[t]``, as in Gymnasium, so an episode's first state has no reward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext import lambda_returns
from automl_ext.rl.dreamer.rssm import Normal


def kl_divergence(p: Normal, q: Normal) -> Tensor:
    """Compute KL(p ‖ q), summed over the last dimension, [..., n] → [...]."""
    ratio = p.std / q.std
    distance = (p.mean - q.mean) / q.std
    return 0.5 * (ratio.square() + distance.square() - 1 - 2 * ratio.log()).sum(-1)


def observation_loss(predicted: Tensor, target: Tensor, std: float) -> Tensor:
    """Compute −log N(target; predicted, std) up to a constant, summed over an observation: [T, B, ...] → [T, B]."""
    return (predicted - target).square().flatten(2).sum(-1) * (0.5 / std**2)


def reward_loss(predicted: Tensor, rewards: Tensor) -> Tensor:
    """Compute −log N(reward; predicted, 1) up to a constant, elementwise."""
    return 0.5 * (predicted - rewards).square()


def continue_loss(logits: Tensor, terminated: Tensor) -> Tensor:
    """Compute the binary cross-entropy of predicting that an episode continues, elementwise."""
    return F.binary_cross_entropy_with_logits(logits, (~terminated).to(logits.dtype), reduction="none")


def free_nats_loss(kl: Tensor, free_nats: float) -> Tensor:
    """Return the batch mean of the divergence, but at least ``free_nats``. A mean below it has no gradient."""
    return kl.clamp_min(free_nats)


def imagined_returns(
    rewards: Tensor, values: Tensor, continues: Tensor | None, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute differentiable λ-returns of the imagined states s_0 … s_{H−1}, and the weights of these states.

    Args:
        rewards: predicted rewards of the transitions to s_1 … s_H, [H, N].
        values: V of s_1 … s_H, [H, N].
        continues: probabilities that s_1 … s_H are not terminal, [H, N]; None: all 1.
        gamma, lam: γ and λ.

    Returns:
        Returns G, [H, N].
        Weights, [H, N], constants: the discounted probability that the trajectory reaches the state.
    """
    discounts = torch.full_like(rewards, gamma) if continues is None else gamma * continues
    returns = lambda_returns(rewards, values, None, None, gamma, lam, discounts=discounts)
    with torch.no_grad():
        weights = torch.cat([torch.ones_like(discounts[:1]), discounts[:-1]]).cumprod(0)
    return returns, weights


def actor_loss(returns: Tensor, entropy: Tensor, weights: Tensor, entropy_scale: float) -> Tensor:
    """Compute −E[G + entropy_scale · H] over [H, N].

    The gradient flows through the returns and the dynamics; it is not a score-function estimate.
    """
    return -weighted_mean(returns + entropy_scale * entropy if entropy_scale else returns, weights)


def value_loss(values: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """Compute E[½ (V − G)²]; the returns are treated as constants."""
    return weighted_mean(0.5 * (values - returns.detach()).square(), weights)


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean of w x over all elements, without dividing by the sum of the weights."""
    return (x * weights).mean()


def masked_mean(x: Tensor, valid: Tensor, columns: slice = slice(None)) -> Tensor:
    """Compute the mean of x [T, B] over the elements where ``valid``.

    If x has some ``columns`` of the B only, the result is their part of the mean.
    """
    weights = valid.to(x.dtype)
    return torch.dot(x.flatten(), weights[:, columns].flatten()) / weights.sum()
