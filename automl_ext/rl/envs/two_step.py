"""The two-step game of QMIX's paper (Rashid et al. 2018, section 6.1), which additive team values cannot solve.

In the first step the first agent chooses between the games A and B; the second agent's action has no effect. In the
second step both receive the payoff of the chosen game. The best team return is 8. Sums of individual values, as in VDN,
undervalue game B and reach 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

PAYOFFS = {1: ((7, 7), (7, 7)), 2: ((0, 1), (1, 8))}  # by state: the games A and B
STATES = 3


class TwoStepGame:
    """The game with PettingZoo's interface ``ParallelEnv``. Both agents observe the one-hot state, float32 [3]."""

    metadata = {"render_modes": [], "name": "two_step"}  # noqa: RUF012  # as PettingZoo declares it
    render_mode = None

    def __init__(self) -> None:
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []
        self.state = 0

    def observation_space(self, agent: str) -> spaces.Box:
        return spaces.Box(0, 1, (STATES,), np.float32)

    def action_space(self, agent: str) -> spaces.Discrete:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.agents, self.state = list(self.possible_agents), 0
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        first, second = (int(actions[agent]) for agent in self.possible_agents)
        done, reward = self.state != 0, 0.0
        if done:
            reward, self.agents = float(PAYOFFS[self.state][first][second]), []
        else:
            self.state = 1 + first
        each: tuple[Any, ...] = reward, done, False, {}
        return self._observe(), *({agent: value for agent in self.possible_agents} for value in each)

    def close(self) -> None:
        """Do nothing."""

    def _observe(self) -> dict[str, np.ndarray]:
        return {agent: np.eye(STATES, dtype=np.float32)[self.state] for agent in self.possible_agents}


def parallel_env() -> TwoStepGame:
    """Make a game, as the modules of PettingZoo do."""
    return TwoStepGame()
