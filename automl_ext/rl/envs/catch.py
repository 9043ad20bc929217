"""Catch (Mnih et al. 2014, section 4.1.1; Osband et al. 2020) seen by a camera at a random place.

Importing this module registers ``automl_ext/Catch-v0`` with Gymnasium.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

BOARD, SIDE, MARGIN = 7, 14, 2  # sides of the board and of the image, smallest distance between their borders


class Catch(gymnasium.Env):
    """Catch a falling ball with a paddle.

    The board has 7 × 7 fields. The ball starts in a random column of the top row and falls one row per step. The paddle
    starts in a random column of the bottom row. The actions move it left (0), not at all (1) or right (2). When the
    ball reaches the bottom row, the episode ends with reward 1 if the paddle is there, else −1.

    The image has 14 × 14 pixels, uint8 [14, 14, 1]: ball and paddle are one white pixel each. In every episode the
    board is at a random place in the image, so the best action depends on the position of the ball relative to the
    paddle, not on the pixels' positions.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.top, self.left = (int(x) for x in self.np_random.integers(MARGIN, SIDE - BOARD - MARGIN + 1, size=2))
        self.column, self.paddle = (int(x) for x in self.np_random.integers(BOARD, size=2))
        self.row = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.row += 1
        self.paddle = min(max(self.paddle + int(action) - 1, 0), BOARD - 1)
        over = self.row == BOARD - 1
        reward = 0.0 if not over else 1.0 if self.paddle == self.column else -1.0
        return self._observe(), reward, over, False, {}

    def _observe(self) -> np.ndarray:
        image = np.zeros((SIDE, SIDE, 1), np.uint8)
        image[self.top + self.row, self.left + self.column] = 255
        image[self.top + BOARD - 1, self.left + self.paddle] = 255
        return image


gymnasium.register("automl_ext/Catch-v0", entry_point=f"{__name__}:Catch", disable_env_checker=True)
