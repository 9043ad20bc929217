"""Scaling of rewards by the standard deviation of returns (Engstrom et al. 2020, https://arxiv.org/abs/2005.12729)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from automl_ext.rl.envs.rollouts import Rollout
from automl_ext.rl.networks.body import RunningNorm

CLIP = 10.0  # largest absolute value of a scaled reward


class RewardScale:
    """Divide rewards by the running standard deviation of R_t = γ R_{t−1} + r_t, and clip them to ±10.

    Values and advantages then have the same scale in every environment, and so do the learning rate, the clipping of
    gradients and the entropy bonus. The mean is not subtracted, because that would change the optimal policy.

    Args:
        n_envs: number of environments, B.
        gamma: discount factor γ.
        device: of the rollouts.
    """

    def __init__(self, n_envs: int, gamma: float, device: torch.device) -> None:
        self.gamma, self.returns = gamma, torch.zeros(n_envs, device=device)  # R_t of the running episodes
        self.norm = RunningNorm(()).to(device)

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Tensor:
        """Include the rewards of a rollout in the statistics; return them scaled, [T, B]."""
        returns = torch.empty_like(rollout.rewards)
        ended = rollout.terminated | rollout.truncated
        for t, rewards in enumerate(rollout.rewards):
            returns[t] = self.returns = self.gamma * self.returns + rewards  # a restart has the reward 0
            self.returns = self.returns.masked_fill(ended[t], 0.0)
        self.norm.update(returns[rollout.valid])
        return (rollout.rewards * self.norm.scale).clamp(-CLIP, CLIP)

    def cut(self) -> None:
        """Forget the returns of the running episodes."""
        self.returns = torch.zeros_like(self.returns)

    def state_dict(self) -> dict[str, Any]:
        return {"returns": self.returns.clone(), "norm": self.norm.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns = state["returns"].clone().to(self.returns.device)
        self.norm.load_state_dict(state["norm"])
