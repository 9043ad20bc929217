"""Small environments with known values, their recorded episodes, and a small DQN configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from automl_ext.rl.algorithms.dqn import DQNConfig

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


def recorded(env: gymnasium.Env, act: Callable[[], int], episodes: int) -> list[dict[str, Any]]:
    """Return episodes of the actions that ``act`` chooses, in Minari's form; episode i begins with seed i."""
    found = []
    for i in range(episodes):
        observations, rows, over = [env.reset(seed=i)[0]], [], False
        while not over:
            action = act()
            observation, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            observations.append(observation)
            rows.append((action, reward, terminated, truncated))
        names = ("actions", "rewards", "terminations", "truncations")
        columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
        found.append({"observations": np.array(observations), **columns})
    return found


class Corridor(gymnasium.Env):
    """Five fields in a row. Action 11 goes right, action 10 left; the right end pays 1, the left end 0.2.

    Both ends terminate an episode, which starts on the second field. An episode is truncated after 20 steps.
    Observations are one-hot, [5].
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (5,), np.float32)
        self.action_space = spaces.Discrete(2, start=10)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.t = 1, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.place += 1 if action == 11 else -1
        reward = {4: 1.0, 0: 0.2}.get(self.place, 0.0)
        return self._observe(), reward, self.place in (0, 4), self.t == 20, {}

    def _observe(self) -> np.ndarray:
        return np.eye(5, dtype=np.float32)[self.place]


def walks(right: float, episodes: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Return episodes of a policy that goes right with this probability, in Minari's form."""
    rng = np.random.default_rng(seed)
    return recorded(Corridor(), lambda: 11 if rng.random() < right else 10, episodes)


def corridor_values(episodes: list[dict[str, Any]], gamma: float) -> np.ndarray:
    """Return the values of fields 1 to 3, without a time limit, under a policy with the frequencies of the episodes."""
    places = np.concatenate([episode["observations"][:-1].argmax(1) for episode in episodes])
    actions = np.concatenate([episode["actions"] for episode in episodes])
    right = np.array([(actions[places == place] == 11).mean() for place in (1, 2, 3)])
    P = np.diag(right[:2], 1) + np.diag(1 - right[1:], -1)
    return np.linalg.solve(np.eye(3) - gamma * P, [(1 - right[0]) * 0.2, 0, right[2]])
