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

    An episode ends with a step that is terminated or truncated. It has also ended if a step does not begin where the
    one before it led, because a resumed run may have to start new episodes.

    Args:
        keys: the hash of observations.
        n_envs: number of environments.
    """

    def __init__(self, keys: ObservationHash, n_envs: int) -> None:
        self.keys = keys
        self.seen: list[set[int]] = [set() for _ in range(n_envs)]
        self.last = np.zeros(n_envs, np.uint64)  # the key of the observation that the step before led to

    def __call__(self, step: Step) -> np.ndarray:
        """Record one step of every environment. Return bool [B]; False where the step is not valid."""
        before, after = self.keys(step.observations), self.keys(step.next_observations)
        begins = before != self.last
        first = np.zeros(len(after), bool)
        for i in np.flatnonzero(step.valid):
            seen = self.seen[i]
            if begins[i]:
                seen.clear()
            seen.add(int(before[i]))
            first[i] = int(after[i]) not in seen
            seen.add(int(after[i]))
            if step.terminated[i] or step.truncated[i]:
                seen.clear()
        self.last = after
        return first

    def state_dict(self) -> dict[str, Any]:
        keys = [np.fromiter(seen, np.uint64, len(seen)) for seen in (*self.seen, self.last.tolist())]
        *seen, last = (torch.from_numpy(part.view(np.int64)) for part in keys)
        return {"seen": seen, "last": last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = [set(part.numpy().view(np.uint64).tolist()) for part in state["seen"]]
        self.last = state["last"].numpy().view(np.uint64).copy()
