"""DeepSea (Osband et al. 2020, https://arxiv.org/abs/1908.03568, section 2.2): a task that needs deep exploration.

A grid of N × N. The agent starts in the upper left corner, and every step leads one row down, and one column to the
left or to the right. A step to the right costs 0.01 / N. The step to the right from the lower right corner gives 1. So
one sequence of N actions of 2ᴺ has the return 0.99, and rewards on the way lead away from it. Which of the two actions
is "right" differs between fields, at random.

Importing this module registers ``automl_ext/DeepSea-v0`` with Gymnasium. Its vector version steps all environments at
once.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

COST = 0.01  # of N steps to the right


class DeepSea(gymnasium.Env):
    """A grid of DeepSea; this module describes it. Observations are one-hot [N²], and all zeros after the last step.

    Args:
        size: N, the number of rows, columns and steps.
        mapping_seed: determines which action is "right" in each field. Unlike the seed of ``reset`` it is part of the
            task: training and evaluation need the same one.

    Raises:
        ValueError: ``size`` is below 1.
    """

    def __init__(self, size: int = 10, mapping_seed: int = 0) -> None:
        self.mapping = right_actions(size, mapping_seed)
        self.observation_space = spaces.Box(0, 1, (size * size,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.row, self.column = 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.row, self.column = 0, 0
        return observe(len(self.mapping), self.row, np.array([self.column]))[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        rewards, columns = move(self.mapping, self.row, np.array([self.column]), np.array([action]))
        self.row, self.column = self.row + 1, int(columns[0])
        size = len(self.mapping)
        return observe(size, self.row, columns)[0], float(rewards[0]), self.row == size, False, {}


class DeepSeaVector(VectorEnv):
    """``num_envs`` environments, which are all in the same row. The other arguments are those of :class:`DeepSea`."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, num_envs: int = 1, size: int = 10, mapping_seed: int = 0) -> None:
        self.num_envs, self.mapping = num_envs, right_actions(size, mapping_seed)
        self.single_observation_space = spaces.Box(0, 1, (size * size,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.row, self.columns = 0, np.zeros(num_envs, np.int64)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.row, self.columns = 0, np.zeros(self.num_envs, np.int64)
        return observe(len(self.mapping), 0, self.columns), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards, self.columns = move(self.mapping, self.row, self.columns, np.asarray(actions))
        self.row += 1
        size, info = len(self.mapping), {}
        ended = self.row == size
        observations = observe(size, self.row, self.columns)
        if ended:
            info = {"final_obs": observations, "_final_obs": np.ones(self.num_envs, bool)}
            observations, _ = self.reset()
        return observations, rewards, np.full(self.num_envs, ended), np.zeros(self.num_envs, bool), info


def right_actions(size: int, seed: int) -> np.ndarray:
    """Return the action that leads to the right in each field, 0 or 1, int64 [N, N]."""
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    return np.random.default_rng(seed).integers(2, size=(size, size))


def move(mapping: np.ndarray, row: int, columns: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rewards, float64 [B], and the next columns [B] of actions in one row."""
    size = len(mapping)
    right = actions == mapping[row, columns]
    treasure = columns == size - 1  # only the last row has a way to the last column
    return right * (treasure - COST / size), np.clip(columns + np.where(right, 1, -1), 0, size - 1)


def observe(size: int, row: int, columns: np.ndarray) -> np.ndarray:
    """Return the one-hot observations, float32 [B, N²]; all zeros below the last row."""
    observations = np.zeros((len(columns), size * size), np.float32)
    if row < size:
        observations[np.arange(len(columns)), row * size + columns] = 1
    return observations


gymnasium.register(
    "automl_ext/DeepSea-v0",
    entry_point=f"{__name__}:DeepSea",
    vector_entry_point=f"{__name__}:DeepSeaVector",
    disable_env_checker=True,
)
