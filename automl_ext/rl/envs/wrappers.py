"""Wrappers around single environments. They hold no state, or plain attributes: see :mod:`automl_ext.rl.envs.state`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from automl_ext.rl.envs.guard import EnvError


class ActionRepeat(gymnasium.Wrapper):
    """Every action for ``repeat`` steps, or until the episode ends; their rewards are summed."""

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
        return observation, total, terminated, truncated, info


class Pixels(gymnasium.ObservationWrapper):
    """What is rendered in place of what is observed, averaged over areas down to uint8 [side, side, 3]."""

    def __init__(self, env: gymnasium.Env, side: int = 64) -> None:
        super().__init__(env)
        self.side = side
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        rendered: Any = self.env.render()
        if rendered.ndim != 3:
            raise EnvError(f"render() must return an image [height, width, 3], got {list(rendered.shape)}")
        image = torch.from_numpy(np.array(rendered)).permute(2, 0, 1).unsqueeze(0).float()
        small = torch.nn.functional.adaptive_avg_pool2d(image, self.side)[0].permute(1, 2, 0)
        return small.round().to(torch.uint8).contiguous().numpy()
