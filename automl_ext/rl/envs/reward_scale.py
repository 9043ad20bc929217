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
        return Step(*step[:2], scaled.astype(np.float32, copy=False), *step[3:])  # faster than _replace

    def _include(self, x: np.ndarray) -> None:
        """Merge the moments of x [N], by its differences from the mean so far (Chan, Golub and LeVeque 1979)."""
        if not x.size:
            return
        difference = x - self.mean
        n, total = self.count + x.size, float(difference.sum())
        moment = self.variance * self.count + float(difference.dot(difference)) - total * total / n
        self.count, self.mean, self.variance = n, self.mean + total / n, max(moment, 0.0) / n

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
