"""Wrappers of single environments. Their state is in plain attributes: see :mod:`automl_ext.rl.envs.state`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.packed import MASK, has_mask

SIDE = 64  # pixels
MINIGRID = (11, 6, 3)  # numbers of object types, colors and states (open, closed and locked doors) in MiniGrid
OFFSETS = np.cumsum((0, *MINIGRID[:-1]))


class ActionRepeat(gymnasium.Wrapper):
    """Repeat every action ``repeat`` times, or until the episode ends, and sum the rewards."""

    def __init__(self, env: gymnasium.Env, repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
            if MASK in info or has_mask(self.observation_space):
                raise EnvError(f"action_repeat: expected 1 with {MASK}: a repeated action may not be allowed")
        return observation, total, terminated, truncated, info


class Pixels(gymnasium.ObservationWrapper):
    """Observe the rendered image, averaged over areas down to uint8 [64, 64, 3].

    Args:
        env: an environment with ``render_mode="rgb_array"``.
        pixels: the value of the option, always True.
    """

    def __init__(self, env: gymnasium.Env, pixels: bool = True) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        return averaged(self.env.render())  # type: ignore[arg-type]  # uint8 [height, width, 3]: see Guard


def averaged(image: np.ndarray) -> np.ndarray:
    """Average an image [height, width, C] over areas to uint8 [64, 64, C], as ``adaptive_avg_pool2d``, rounded."""
    rows, heights = _window_sums(image)
    sums, widths = _window_sums(rows.swapaxes(0, 1))
    means = sums.swapaxes(0, 1) / heights[:, None, None] / widths[:, None]
    return np.rint(means).astype(np.uint8)


def _window_sums(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum x over 64 windows of its first axis, which may overlap; return the sums and the windows' float32 lengths."""
    n, flat = len(x), np.ascontiguousarray(x).reshape(len(x), -1)
    bounds = [(i * n // SIDE, -(-(i + 1) * n // SIDE)) for i in range(SIDE)]
    sums = np.empty((SIDE, flat.shape[1]), np.uint32)
    for i, (start, stop) in enumerate(bounds):
        np.add.reduce(flat[start:stop], 0, np.uint32, out=sums[i])
    return sums.reshape(SIDE, *x.shape[1:]), np.array([stop - start for start, stop in bounds], np.float32)


class OneHotView(gymnasium.ObservationWrapper):
    """Observe the view of MiniGrid's agent (Chevalier-Boisvert et al. 2023), one-hot: bool [height, width, 20].

    The mission's text and the direction are left out. With MiniGrid's ``FullyObsWrapper`` there are 21 channels: the
    image contains the agent, and the agent's state is one of four directions.

    Args:
        env: an environment whose observations have an ``image`` of object types, colors and states.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        image = env.observation_space["image"]  # type: ignore[index]
        channels = sum(MINIGRID) + _sees_agent(env)
        self.observation_space = spaces.Box(0, 1, (*image.shape[:2], channels), np.bool_)

    def observation(self, observation: Any) -> np.ndarray:
        places = observation["image"] + OFFSETS
        out = np.zeros(self.observation_space.shape or (), bool)
        np.put_along_axis(out, places, True, axis=2)
        return out


def _sees_agent(env: gymnasium.Env) -> bool:
    """Return whether a wrapper lets observations of MiniGrid contain the agent."""
    from minigrid.wrappers import FullyObsWrapper

    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, FullyObsWrapper):
            return True
        env = env.env
    return False
