"""Imagined latent trajectories of the policy, through which gradients flow (Hafner et al. 2020, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer.actions import OneHot, TanhNormal
from automl_ext.rl.dreamer.fused.recurrence import imagined_step
from automl_ext.rl.dreamer.rssm import RSSM


class Imagined(NamedTuple):
    """Imagined trajectories.

    Attributes:
        features: features of the states s_0 … s_H, each [N, features]. They are separate tensors because the work on
            one of them then fits into a cache.
        entropy: entropy of the policy at s_0 … s_{H−1}, [H, N].
    """

    features: list[Tensor]
    entropy: Tensor


def imagine(
    rssm: RSSM,
    actor: nn.Module,
    actions: OneHot | TanhNormal,
    start: Tensor,
    action_noise: Tensor,
    state_noise: Tensor,
) -> Imagined:
    """Follow the policy in the world model for H steps.

    The actor's inputs are detached: gradients reach the actor through the consequences of its actions, but not through
    the states that it reads.

    Args:
        rssm: its parameters are treated as constants.
        start: features of s_0, [N, features].
        action_noise: ``actions.noise((H, N), …)``.
        state_noise: standard normal, [H, N, stoch].
    """
    weights = rssm.imagination_weights()
    features, entropies = [start], []
    for noise_a, noise_s in zip(action_noise.unbind(), state_noise.unbind(), strict=True):
        action, entropy = actions.sample(actor(features[-1].detach()), noise_a)
        features.append(imagined_step(weights, features[-1], action, noise_s))
        entropies.append(entropy)
    return Imagined(features, torch.stack(entropies))
