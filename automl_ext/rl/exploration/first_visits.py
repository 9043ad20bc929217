"""Bonuses once per episode (NovelD, Zhang et al. 2021): an agent that goes back and forth gets nothing.

Without this limit, the bonuses of a long episode can exceed the reward of the task, and an agent that reaches the goal
ends the episode and so loses them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from automl_ext.rl.envs.vector import Step
from automl_ext.rl.exploration.hashing import ObservationHash


class FirstVisits:
    """Tells which steps reach an observation that their running episode has not had before.

    Args:
        keys: the hash of observations.
        n_envs: number of environments.
    """

    def __init__(self, keys: ObservationHash, n_envs: int) -> None:
        self.keys = keys
        self.seen: list[set[int]] = [set() for _ in range(n_envs)]

    def __call__(self, step: Step) -> np.ndarray:
        """Record one step of every environment. Return bool [B]; False where the step is not valid."""
        before, after = self.keys(step.observations).tolist(), self.keys(step.next_observations).tolist()
        first = np.zeros(len(after), bool)
        for i in np.flatnonzero(step.valid):
            self.seen[i].add(before[i])
            first[i] = after[i] not in self.seen[i]
            self.seen[i].add(after[i])
            if step.terminated[i] or step.truncated[i]:
                self.seen[i].clear()
        return first

    def state_dict(self) -> dict[str, Any]:
        keys = [np.fromiter(seen, np.uint64, len(seen)).view(np.int64) for seen in self.seen]
        return {"seen": [torch.from_numpy(part) for part in keys]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = [set(part.numpy().view(np.uint64).tolist()) for part in state["seen"]]
