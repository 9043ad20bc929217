"""A small environment with images, and DQN agents for it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation

from automl_ext.rl import DQN, Batch, DQNConfig, Envs
from automl_ext.rl.algorithms.rainbow import Rainbow, RainbowConfig
from automl_ext.rl.extras import Extras

SIDE = 10


class Spot(gymnasium.Env):
    """An image with a bright spot of 2 × 2 pixels; the reward is 1 for the action of its half, left 0 or right 1.

    The spot moves after every step. Episodes have five steps. ``layout`` is the shape of the image.
    """

    def __init__(self, layout: tuple[int, ...] = (SIDE, SIDE, 1)) -> None:
        self.observation_space = spaces.Box(0, 255, layout, np.uint8)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == (self.column >= SIDE // 2))
        self.t += 1
        return self._observe(), reward, self.t == 5, False, {}

    def _observe(self) -> np.ndarray:
        row, self.column = self.np_random.integers(SIDE - 1), self.np_random.choice([0, 1, 2, 6, 7, 8])
        image = np.zeros((SIDE, SIDE), np.uint8)
        image[row : row + 2, self.column : self.column + 2] = 255
        return image.reshape(self.observation_space.shape or ())


def spot_dqn(*extras: Any, stack: int = 1, layout: tuple[int, ...] = (SIDE, SIDE, 1), **options: Any) -> DQN:
    """Return an agent with a replay of 60 transitions of random actions. With ``stack``, images are stacked."""

    def make() -> gymnasium.Env:
        return Spot(layout) if stack == 1 else FrameStackObservation(Spot(layout), stack)

    envs = Envs(SyncVectorEnv([make] * 4, autoreset_mode=AutoresetMode.SAME_STEP), 0)
    envs.frame_stack = stack
    settings: dict[str, Any] = {"n_envs": 4, "hidden": (16,), "batch_size": 8, "learning_starts": 60, "train_freq": 4}
    settings |= {"gradient_steps": 1, "total_steps": 1_000, "buffer_size": 400, "n_step": 1, "max_grad_norm": 1e9}
    settings |= {"lr_decay": False, "v_min": 0.0, "v_max": 5.0, "extras": Extras.of(extras)}
    rainbow = options.pop("rainbow", False)
    agent = (Rainbow if rainbow else DQN)((RainbowConfig if rainbow else DQNConfig)(**(settings | options)), envs)
    while envs.steps < 60:
        agent.replay.add(envs.step(agent.explore(envs.observations)))
    return agent


class Recorded:
    """A transform of batches that keeps what it gets and returns."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, batch: Batch) -> Batch:
        self.before, self.after = batch, self.transform(batch)
        return self.after
