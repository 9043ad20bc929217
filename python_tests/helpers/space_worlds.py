"""Environments with action masks, structured observations and structured actions.

In each of them, an agent that ignores the mask, or one part of the observation, cannot get the full return.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from automl_ext.rl.envs.vector import Envs

Result = tuple[Any, float, bool, bool, dict[str, Any]]


class Masked(gymnasium.Env):
    """Six actions of which two, drawn anew in every step, are allowed; nothing but the mask tells which.

    An allowed action of the upper half gets 1, another allowed one 0; episodes are truncated after four steps. At least
    one allowed action is of the upper half. An action that is not allowed is counted in ``invalid`` and terminates the
    episode with −1.
    """

    invalid: ClassVar[int] = 0
    actions = 6

    def __init__(self) -> None:
        self.observation_space: spaces.Space = spaces.Box(0, 1, (2,), np.float32)
        self.action_space: spaces.Space = spaces.Discrete(self.actions)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.state()

    def step(self, action: Any) -> Result:
        self.t += 1
        allowed = bool(self.mask[action])
        if not allowed:
            type(self).invalid += 1
        reward = float(action >= self.actions // 2) if allowed else -1.0
        observation, info = self.state()
        return observation, reward, not allowed, allowed and self.t == 4, info

    def state(self) -> tuple[Any, dict[str, Any]]:
        """Draw a new mask; return the observation and the info dictionary."""
        half = self.actions // 2
        self.mask = np.zeros(self.actions, np.int8)
        self.mask[half + self.np_random.integers(half)] = self.mask[self.np_random.integers(self.actions)] = 1
        return np.ones(2, np.float32), {"action_mask": self.mask, "note": "x"}


class MaskedByKey(Masked):
    """:class:`Masked` with the mask as a key of the observation."""

    invalid: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        mask = spaces.Box(0, 1, (self.actions,), np.int8)
        self.observation_space = spaces.Dict({"state": self.observation_space, "action_mask": mask})

    def state(self) -> tuple[Any, dict[str, Any]]:
        observation, info = super().state()
        return {"state": observation, "action_mask": info["action_mask"]}, {}


class Pictured(gymnasium.Env):
    """A contextual bandit with an image, a number and a vector in a Dict; each part tells one bit of the action.

    The right action is 4 · image + 2 · number + vector. The reward is the fraction of its bits that are right.
    """

    def __init__(self) -> None:
        self.observation_space: spaces.Space = spaces.Dict(
            {
                "picture": spaces.Box(0, 255, (5, 5, 1), np.uint8),
                "number": spaces.Discrete(2, start=3),
                "vector": spaces.Box(-1, 1, (2,), np.float64),
            }
        )
        self.action_space: spaces.Space = spaces.Discrete(8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.bits = self.np_random.integers(2, size=3)
        return self.observe(self.bits), {}

    def step(self, action: Any) -> Result:
        assert self.action_space.contains(action), action
        return self.observe(self.bits), float((self.bits_of(action) == self.bits).mean()), True, False, {}

    @staticmethod
    def bits_of(action: Any) -> np.ndarray:
        return np.array([action // 4, action // 2 % 2, action % 2])

    @staticmethod
    def observe(bits: np.ndarray) -> Any:
        picture = np.zeros((5, 5, 1), np.uint8)
        picture[:, 3 * bits[0] : 3 * bits[0] + 2] = 255
        return {"picture": picture, "number": 3 + bits[1], "vector": np.array([0.3, 2.0 * bits[2] - 1])}


class Listed(Pictured):
    """:class:`Pictured` with a Tuple of a Dict and numbers, without an image."""

    def __init__(self) -> None:
        super().__init__()
        inner = spaces.Dict({"pair": spaces.MultiDiscrete([3, 2], start=[1, 0]), "bits": spaces.MultiBinary(2)})
        self.observation_space = spaces.Tuple((inner, spaces.Box(0, 255, (2, 2), np.uint8)))

    @staticmethod
    def observe(bits: np.ndarray) -> Any:
        pair, both = np.array([2, bits[0]]), np.array([bits[1], 1], np.int8)
        return {"pair": pair, "bits": both}, np.full((2, 2), 255 * bits[2], np.uint8)


class Switches(Listed):
    """:class:`Listed` with one binary action for each bit, in two rows: two of the bits, and the third one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiBinary((2, 2))

    @staticmethod
    def bits_of(action: Any) -> np.ndarray:
        return np.array([action[0, 0], action[0, 1], action[1, 0] & action[1, 1]])


class Dials(Masked):
    """:class:`Masked` with two actions, of six and of three values. Of the second one, value 2 is never allowed."""

    invalid: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiDiscrete([self.actions, 3], start=[1, 5])

    def step(self, action: Any) -> Result:
        assert self.action_space.contains(action), action
        first, second = action - (1, 5)
        type(self).invalid += int(second == 2)
        observation, reward, *rest = super().step(first)
        return observation, reward * (second == 1), *rest

    def state(self) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().state()
        return observation, {"action_mask": np.concatenate([self.mask, [1, 1, 0]])}


def envs_of_world(
    world: Any, n: int = 8, mode: AutoresetMode = AutoresetMode.SAME_STEP, seed: int = 0, guarded: bool = True
) -> Envs:
    """Make environments of a class, in a Guard as those of agents."""
    from automl_ext.rl.envs.guard import Guard

    make = (lambda: Guard(world(), "environment")) if guarded else world
    return Envs(SyncVectorEnv([make] * n, autoreset_mode=mode), seed)
