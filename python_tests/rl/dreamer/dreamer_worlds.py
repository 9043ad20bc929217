"""A small environment and a small configuration for tests of Dreamer."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from automl_ext.rl.dreamer import DreamerConfig
from automl_ext.rl.envs.callables import env_id_of


class PointOnLine(gymnasium.Env):
    """A point on [−1, 1]. An action moves it by at most 0.2; the reward is its position; episodes last ten steps.

    Observations are position and time, or images of the position.
    """

    def __init__(self, continuous: bool, images: bool = False) -> None:
        shape, kind = ((64, 64, 3), np.uint8) if images else ((2,), np.float32)
        self.observation_space = spaces.Box(0 if images else -1, 255 if images else 1, shape, kind)
        self.action_space = spaces.Box(-3, 1, (1,), np.float32) if continuous else spaces.Discrete(3, start=4)
        self.continuous, self.images = continuous, images

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-0.5, 0.5)), 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        push = (float(action[0]) + 1) / 2 if self.continuous else float(action) - 5
        self.x, self.t = min(max(self.x + 0.2 * push, -1), 1), self.t + 1
        return self._observe(), self.x, False, self.t == 10, {}

    def _observe(self) -> np.ndarray:
        if not self.images:
            return np.array([self.x, self.t / 10], np.float32)
        image = np.zeros((64, 64, 3), np.uint8)
        left = round((self.x + 1) * 28)
        image[28:36, left : left + 8] = 255
        return image


def point_on_line(continuous: bool, images: bool = False) -> str:
    """Return the id of such an environment."""
    return env_id_of(functools.partial(PointOnLine, continuous, images))


SIZES = {"deter": 16, "stoch": 4, "hidden": 16, "units": 16, "depth": 2}
SIZES |= {"actor_layers": 1, "value_layers": 1, "continue_layers": 1, "reward_layers": 1, "encoder_layers": 1}
TINY = DreamerConfig(
    **SIZES,
    total_steps=120,
    prefill=40,
    pretrain=1,
    train_every=10,
    batch_size=3,
    sequence_length=5,
    horizon=3,
    eval_every=50,
    eval_episodes=2,
    final_episodes=2,
    checkpoint_every=30,
)
