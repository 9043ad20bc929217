"""Dreamer's three losses, apart from the loop (Hafner et al. 2020, equations 6 to 8 and 10)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext import lambda_returns
from automl_ext.rl.dreamer.rssm import Normal


def kl_divergence(p: Normal, q: Normal) -> Tensor:
    """KL(p ‖ q) summed over the last dim, [..., n] → [...]."""
    ratio = p.std / q.std
    distance = (p.mean - q.mean) / q.std
    return 0.5 * (ratio.square() + distance.square() - 1 - 2 * ratio.log()).sum(-1)


def observation_loss(predicted: Tensor, target: Tensor, std: float) -> Tensor:
    """−log N(target; predicted, std) up to a constant, summed over an observation: [T, B, ...] → [T, B]."""
    return (predicted - target).square().flatten(2).sum(-1) * (0.5 / std**2)


def reward_loss(predicted: Tensor, rewards: Tensor) -> Tensor:
    """−log N(reward; predicted, 1) up to a constant."""
    return 0.5 * (predicted - rewards).square()


def continue_loss(logits: Tensor, terminated: Tensor) -> Tensor:
    """−log p(the episode goes on, or not)."""
    return F.binary_cross_entropy_with_logits(logits, (~terminated).to(logits.dtype), reduction="none")


def free_nats_loss(kl: Tensor, free_nats: float) -> Tensor:
    """What the mean divergence has above ``free_nats``, and these: free for the batch, not for each step."""
    return kl.clamp_min(free_nats)


def imagined_returns(
    rewards: Tensor, values: Tensor, continues: Tensor | None, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """λ-returns of the states s_0 … s_{H−1} of imagined trajectories, with gradients, and how much each state counts.

    Args:
        rewards: predicted on the way to s_1 … s_H, [H, N].
        values: V of s_1 … s_H.
        continues: probability that s_1 … s_H are not terminal; None: 1.
        gamma, lam: γ and λ.

    Returns:
        G [H, N]; weights [H, N], constants: the probability, discounted, that the trajectory gets there.
    """
    discounts = torch.full_like(rewards, gamma) if continues is None else gamma * continues
    returns = lambda_returns(rewards, values, None, None, gamma, lam, discounts=discounts)
    with torch.no_grad():
        weights = torch.cat([torch.ones_like(discounts[:1]), discounts[:-1]]).cumprod(0)
    return returns, weights


def actor_loss(returns: Tensor, entropy: Tensor, weights: Tensor, entropy_scale: float) -> Tensor:
    """−E[G + entropy_scale · H], over [H, N]; its gradient is through the returns, not by the score function."""
    return -weighted_mean(returns + entropy_scale * entropy if entropy_scale else returns, weights)


def value_loss(values: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """E[½ (V − G)²], the returns constants."""
    return weighted_mean(0.5 * (values - returns.detach()).square(), weights)


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Σ w x / number of them; weights sum as they please."""
    return (x * weights).mean()


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of [T, B] where ``valid``."""
    weights = valid.to(x.dtype)
    return torch.dot(x.flatten(), weights.flatten()) / weights.sum()
