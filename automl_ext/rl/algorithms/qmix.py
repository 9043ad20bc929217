"""QMIX (Rashid et al. 2018, https://arxiv.org/abs/1803.11485): VDN with a monotonic mixing network.

The state that the mixing network reads is the concatenation of all agents' observations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.rl.algorithms.vdn import VDN, VDNConfig
from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.training.checks import check_range


@dataclass
class QMIXConfig(VDNConfig):
    """Configuration of QMIX. The defaults are for the two-step game."""

    mixing_units: int = 32  # Hidden units of the mixing network.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "mixing_units", low=1)


class Monotonic(nn.Module):
    """The mixing network of QMIX (Rashid et al. 2018, https://arxiv.org/abs/1803.11485, figure 2):

    Q_tot = |W₂(s)|ᵀ ELU(|W₁(s)| Q + b₁(s)) + b₂(s)

    Its weights are outputs of networks of the state s, and their absolute values make ∂Q_tot/∂Q_i ≥ 0.

    Args:
        agents: number of agents, A.
        state: size of the state, S.
        units: number of hidden units.
    """

    def __init__(self, agents: int, state: int, units: int = 32) -> None:
        super().__init__()
        self.agents, self.units = agents, units
        self.first_weight = nn.Linear(state, agents * units)
        self.first_bias = nn.Linear(state, units)
        self.last_weight = nn.Linear(state, units)
        self.last_bias = nn.Sequential(nn.Linear(state, units), nn.ReLU(), nn.Linear(units, 1))

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mix the agents' values [N, A] in the states [N, S] to [N]."""
        first = self.first_weight(state).abs().view(-1, self.agents, self.units)
        hidden = F.elu((values.unsqueeze(1) @ first).squeeze(1) + self.first_bias(state))
        mixed: Tensor = (hidden * self.last_weight(state).abs()).sum(1) + self.last_bias(state).squeeze(1)
        return mixed


class QMIX(VDN):
    """The QMIX agent: :class:`VDN` with the mixing network :class:`Monotonic`."""

    config: QMIXConfig
    algorithm = "qmix"

    def mixer(self, space: GroupedBox) -> nn.Module:
        return Monotonic(len(space.names), len(space.names) * space.own, self.config.mixing_units)
