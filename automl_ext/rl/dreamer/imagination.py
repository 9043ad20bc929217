"""Latent trajectories under the policy, along which gradients flow (Hafner et al. 2020, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer.heads import OneHot, TanhNormal
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
        rssm: its parameters should not require a gradient, which is never wanted here and costs time.
        start: features of s_0, [N, features].
        action_noise: ``actions.noise((H, N), …)``.
        state_noise: standard normal, [H, N, stoch].
    """
    deter, stoch = start.split([rssm.deter, rssm.stoch], -1)
    features, entropies = [start], []
    for of_action, of_state in zip(action_noise.unbind(), state_noise.unbind(), strict=True):
        action, entropy = actions.sample(actor(features[-1].detach()), of_action)
        deter = rssm.step(deter, stoch, rssm.from_action(action))
        mean, std = rssm.prior(deter)
        stoch = torch.addcmul(mean, std, of_state)
        features.append(torch.cat([deter, stoch], -1))
        entropies.append(entropy)
    return Imagined(features, torch.stack(entropies))
