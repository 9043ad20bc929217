"""Small environments of several agents with PettingZoo's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from automl_ext.rl.envs.lanes import Lanes
from automl_ext.rl.envs.vector import Envs


class Staggered:
    """Agent a lives for two steps and terminates, agent b lives for four and is truncated.

    Observations are the time: of a [t], of b [t, 10 · t]. The reward is 1 if the action is the agent's number, else 0.
    """

    metadata = {"render_fps": 7}  # noqa: RUF012
    render_mode = None
    lives = {"a": 2, "b": 4}  # noqa: RUF012

    def __init__(self) -> None:
        self.possible_agents, self.agents, self.t = ["a", "b"], [], 0

    def observation_space(self, agent: str) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (1 + self.possible_agents.index(agent),), np.float64)

    def action_space(self, agent: str) -> spaces.Discrete:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.agents, self.t = list(self.possible_agents), 0
        return self.observe(), {}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        assert list(actions) == self.agents, "only living agents act"
        self.t += 1
        observations = self.observe()
        rewards = {agent: float(actions[agent] == self.possible_agents.index(agent)) for agent in self.agents}
        done = {agent: self.t == self.lives[agent] for agent in self.agents}
        terminated = {agent: done[agent] and agent == "a" for agent in self.agents}
        truncated = {agent: done[agent] and agent == "b" for agent in self.agents}
        self.agents = [agent for agent in self.agents if not done[agent]]
        return observations, rewards, terminated, truncated, {}

    def observe(self) -> dict[str, np.ndarray]:
        return {agent: np.array([self.t, 10.0 * self.t][: 1 + (agent == "b")]) for agent in self.agents}

    def close(self) -> None:
        pass


class Together(Staggered):
    """Both agents live for two steps."""

    lives = {"a": 2, "b": 2}  # noqa: RUF012


def lanes_of(kind: type[Staggered], copies: int = 2, central: bool = False) -> Envs:
    return Envs(Lanes([kind] * copies, central), 0)
