"""MiniGrid's observations (Chevalier-Boisvert et al. 2023) as arrays that the networks take."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

PREFIX = "MiniGrid-"
VALUES = (11, 6, 3)  # numbers of object types, colors and states (open, closed and locked doors)
OFFSETS = np.cumsum((0, *VALUES[:-1]))


class OneHotView(gymnasium.ObservationWrapper):
    """Observe what the agent sees, one-hot: bool [height, width, 20], without the mission's text and the direction.

    Args:
        env: an environment whose observations have an ``image`` of object types, colors and states.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        image = env.observation_space["image"]  # type: ignore[index]
        self.observation_space = spaces.Box(0, 1, (*image.shape[:2], sum(VALUES)), np.bool_)

    def observation(self, observation: Any) -> np.ndarray:
        places = observation["image"] + OFFSETS
        out = np.zeros(self.observation_space.shape or (), bool)
        np.put_along_axis(out, places, True, axis=2)
        return out
