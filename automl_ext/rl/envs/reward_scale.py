"""Scaling of rewards by the standard deviation of returns (Engstrom et al. 2020, https://arxiv.org/abs/2005.12729)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Step

CLIP = 10.0  # largest absolute value of a scaled reward
EPS = 1e-8  # added to the variance


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
        self._include(self.returns[step.valid] if b"\0" in step.valid.tobytes() else self.returns)
        self.returns[step.terminated | step.truncated] = 0.0
        scaled = np.minimum(np.maximum(step.rewards / (self.variance + EPS) ** 0.5, -CLIP), CLIP)  # faster than np.clip
        return step._replace(rewards=scaled.astype(np.float32, copy=False))

    def _include(self, x: np.ndarray) -> None:
        """Merge the moments of x [N] (Chan, Golub and LeVeque 1979)."""
        size = x.size
        if not size:
            return
        n, mean = self.count + size, np.add.reduce(x) / size  # faster than x.mean() and x.var()
        centered, delta = x - mean, float(mean) - self.mean
        squares = float(np.add.reduce(centered * centered) / size) * size
        moment = self.variance * self.count + squares + delta**2 * self.count * size / n
        self.count, self.mean, self.variance = n, self.mean + delta * size / n, moment / n

    @property
    def moments(self) -> Tensor:
        """Number, mean and variance of all R_t so far, float64 [3]. Saved policies contain them."""
        return torch.tensor([self.count, self.mean, self.variance], dtype=torch.float64)

    @moments.setter
    def moments(self, moments: Tensor) -> None:
        count, self.mean, self.variance = moments.tolist()
        self.count = int(count)

    def cut(self) -> None:
        """Forget the returns of the running episodes."""
        self.returns = np.zeros_like(self.returns)

    def state_dict(self) -> dict[str, Any]:
        return {"returns": torch.from_numpy(self.returns.copy()), "moments": self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns, self.moments = state["returns"].numpy().copy(), state["moments"]
