"""Latent trajectories under the policy, along which gradients flow (Hafner et al. 2020, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer.actions import OneHot, TanhNormal
from automl_ext.rl.dreamer.fused.recurrence import imagined_step
from automl_ext.rl.dreamer.rssm import RSSM


class Imagined(NamedTuple):
    """Attributes:
    features: of the states s_0 … s_H, each [N, features]; apart, as what is made of one fits into a cache.
    entropy: of the policy at s_0 … s_{H−1}, [H, N].
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
    """Follow the policy in the model.

    The actor sees states as constants: a gradient reaches it through what its actions lead to, not through how it
    came to see what it sees.

    Args:
        rssm: its parameters are constants here.
        start: features of s_0, [N, features].
        action_noise: ``actions.noise((H, N), …)``.
        state_noise: standard normal, [H, N, stoch].
    """
    features, entropies = [start], []
    for of_action, of_state in zip(action_noise.unbind(), state_noise.unbind(), strict=True):
        action, entropy = actions.sample(actor(features[-1].detach()), of_action)
        features.append(imagined_step(rssm, features[-1], action, of_state))
        entropies.append(entropy)
    return Imagined(features, torch.stack(entropies))
