"""A chain with known action values, and a small DQN configuration for it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from automl_ext.rl.dqn.agent import DQNConfig

GAMMA = 0.8


class Fork(gymnasium.Env):
    """From the start, action 0 leads through steps with rewards 0, 0 and 1 to the end; action 1 stays with reward 0.3.

    Episodes are truncated after ``limit`` steps if given. Observations are one-hot, [4]: start, first, second, the end.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.observation_space = spaces.Box(0, 1, (4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.limit = limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.t = 0, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        stays = self.place == 0 and action == 1
        self.place += 0 if stays else 1
        reward = 0.3 if stays else float(self.place == 3)
        return self._observe(), reward, self.place == 3, self.t == self.limit, {}

    def _observe(self) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[self.place]


def small(**changes: Any) -> DQNConfig:
    settings: dict[str, Any] = {
        "total_steps": 2_500,
        "n_envs": 4,
        "hidden": (32,),
        "lr": 5e-3,
        "lr_decay": False,
        "n_step": 1,
        "gamma": GAMMA,
        "batch_size": 32,
        "buffer_size": 4_000,
        "learning_starts": 200,
        "train_freq": 16,
        "gradient_steps": 8,
        "target_update_interval": 48,
        "exploration_fraction": 1.0,
        "final_epsilon": 0.5,
        "v_min": 0.0,
        "v_max": 2.5,
    }
    return DQNConfig(**(settings | changes))


def random_episodes(n: int) -> list[dict[str, np.ndarray]]:
    """Return episodes of :class:`Fork` with random actions, in Minari's format."""
    rng, env, episodes = np.random.default_rng(0), Fork(limit=6), []
    for _ in range(n):
        observations, steps, over = [env.reset()[0]], [], False
        while not over:
            action = int(rng.integers(2))
            observation, *step = env.step(action)
            observations.append(observation)
            steps.append((action, *step[:3]))
            over = step[1] or step[2]
        names = ("actions", "rewards", "terminations", "truncations")
        columns = {name: np.array(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}
        episodes.append({"observations": np.array(observations), **columns})
    return episodes
