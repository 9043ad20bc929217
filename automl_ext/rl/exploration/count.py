"""Count-based exploration: b(s′) = 1 / √n(s′), where n counts the visits (Strehl & Littman 2008; Tang et al. 2017)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Step
from automl_ext.rl.exploration.hashing import ObservationHash


class CountBonus:
    """1 / √n(s′) for the next observation s′, and 1 if it was never visited.

    Args:
        space, seed, digits: see :class:`~automl_ext.rl.exploration.hashing.ObservationHash`.
    """

    def __init__(self, space: gymnasium.Space, seed: int = 0, digits: int = 1) -> None:
        self.keys = ObservationHash(space, seed, digits)
        self.counts: dict[int, int] = {}

    def observe(self, step: Step) -> None:
        """Count the next observations of one step of every environment."""
        for key in self.keys(step.next_observations[step.valid]).tolist():
            self.counts[key] = self.counts.get(key, 0) + 1

    def __call__(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
        """Return the bonus of transitions, float32 [N]."""
        counts = [self.counts.get(key, 1) for key in self.keys(next_observations.numpy(force=True)).tolist()]
        return torch.tensor(counts, dtype=torch.float32, device=next_observations.device).rsqrt()

    def state_dict(self) -> dict[str, Any]:
        keys = np.fromiter(self.counts.keys(), np.uint64, len(self.counts)).view(np.int64)
        return {"keys": torch.from_numpy(keys), "counts": torch.tensor(list(self.counts.values()), dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        keys = state["keys"].numpy().view(np.uint64)
        self.counts = dict(zip(keys.tolist(), state["counts"].tolist(), strict=True))
