"""Scaling of rewards by the standard deviation of returns (Engstrom et al. 2020, https://arxiv.org/abs/2005.12729)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from tyro.conf import arg

from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras.checks import on_policy
from automl_ext.rl.loop.seams import Seam

CLIP = 10.0  # largest absolute value of a scaled reward
EPS = 1e-8  # added to the variance


@dataclass
class ScaledRewards:
    """Rewards divided by the running standard deviation of the discounted returns, for on-policy agents."""

    name: ClassVar[str] = "scaled-rewards"
    seams: ClassVar[frozenset[Seam]] = frozenset({"steps"})

    on: Annotated[bool, arg(name="scaled-rewards.on")] = True
    """Divide rewards by the running standard deviation of the discounted returns."""

    @property
    def active(self) -> bool:
        return self.on

    def attach(self, agent: Any) -> None:
        on_policy(agent, self.name)  # a replay would mix rewards of different scales
        add_transform(agent.envs, RewardScale(agent.envs.n_envs, agent.config.gamma))


class RewardScale:
    """Divide rewards by the running standard deviation of R_t = γ R_{t−1} + r_t, and clip them to ±10.

    Values and advantages then have the same scale in every environment, and so do the learning rate, the clipping of
    gradients and the entropy bonus. The mean is not subtracted, because that would change the optimal policy.

    Args:
        n_envs: number of environments, B.
        gamma: discount factor γ.
    """

    def __init__(self, n_envs: int, gamma: float) -> None:
        self.gamma, self.returns = gamma, np.zeros(n_envs)  # R_t of the running episodes
        self.count, self.mean, self.variance = 0, 0.0, 0.0  # of all R_t so far

    def __call__(self, step: Step) -> Step:
        """Include the rewards of a step in the statistics, then scale them."""
        self.returns = self.gamma * self.returns + step.rewards  # a restart has the reward 0
        self._include(self.returns[step.valid])
        self.returns[step.terminated | step.truncated] = 0.0
        scaled = np.clip(step.rewards / (self.variance + EPS) ** 0.5, -CLIP, CLIP)
        return step._replace(rewards=scaled.astype(np.float32))

    def _include(self, x: np.ndarray) -> None:
        """Merge the moments of x [N] (Chan, Golub and LeVeque 1979)."""
        if not x.size:
            return
        n, mean = self.count + x.size, float(x.mean())
        delta = mean - self.mean
        moment = self.variance * self.count + float(x.var()) * x.size + delta**2 * self.count * x.size / n
        self.count, self.mean, self.variance = n, self.mean + delta * x.size / n, moment / n

    def cut(self) -> None:
        """Forget the returns of the running episodes."""
        self.returns = np.zeros_like(self.returns)

    def state_dict(self) -> dict[str, Any]:
        moments = {"count": self.count, "mean": self.mean, "variance": self.variance}
        return {"returns": torch.from_numpy(self.returns.copy()), **moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns = state["returns"].numpy().copy()
        self.count, self.mean, self.variance = state["count"], state["mean"], state["variance"]
