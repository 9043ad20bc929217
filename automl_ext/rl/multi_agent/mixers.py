"""Mixing functions: the value of a team's joint action from the values of the agents' actions.

Both are monotonic in every agent's value, so that the agents' own greedy actions are the greedy joint action.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Sum(nn.Module):
    """Q_tot = Σ Q_i (VDN, Sunehag et al. 2017, https://arxiv.org/abs/1706.05296)."""

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mix the agents' values [N, A] to [N]; the state [N, S] has no effect."""
        return values.sum(1)


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
