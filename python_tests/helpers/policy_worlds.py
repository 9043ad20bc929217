"""Small environments, each of which reveals one kind of mistake of an agent."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from automl_ext.rl.envs.lanes import Lanes
from automl_ext.rl.envs.rollouts import Rollout
from automl_ext.rl.envs.vector import Envs


class World(gymnasium.Env):
    """An environment with one-hot states that starts in state 0. Subclasses define ``move``."""

    states, actions = 3, 2

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (self.states,), np.float32)
        self.action_space = spaces.Discrete(self.actions)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.t = self.first(), 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        reward, terminated, truncated = self.move(int(action))
        return self.observe(), reward, terminated, truncated, {}

    def first(self) -> int:
        return 0

    def move(self, action: int) -> tuple[float, bool, bool]:
        raise NotImplementedError

    def observe(self) -> np.ndarray:
        return np.eye(self.states, dtype=np.float32)[self.state]


class Bandit(World):
    """A contextual bandit: the reward is 1 if the action equals the context, else 0."""

    states, actions = 3, 3

    def first(self) -> int:
        return int(self.np_random.integers(3))

    def move(self, action: int) -> tuple[float, bool, bool]:
        return float(action == self.state), True, False


class Patience(World):
    """From state 0, action 0 ends with reward 1; action 1 leads to 1.5 in three steps: better if gamma² · 1.5 > 1."""

    def move(self, action: int) -> tuple[float, bool, bool]:
        if self.state == 0 and action == 0:
            return 1.0, True, False
        if self.state == 2:
            return 1.5, True, False
        self.state += 1
        return 0.0, False, False


class Forever(World):
    """One state with reward 1 that is truncated every four steps and never terminates: V = 1 / (1 − gamma)."""

    states = 1

    def move(self, action: int) -> tuple[float, bool, bool]:
        return 1.0, False, self.t == 4


class Cut(World):
    """Three of four episodes start in state 0: one step with reward 0, truncated in state 1.

    The others start in state 1 and get reward 1, so V(0) = gamma. Bootstrapping from the next episode's first
    observation instead of the final one gives less.
    """

    def first(self) -> int:
        return int(self.np_random.integers(4) == 0)

    def move(self, action: int) -> tuple[float, bool, bool]:
        if self.state == 1:
            return 1.0, True, False
        self.state = 1
        return 0.0, False, True


class Alternating(World):
    """Episodes of one step, alternating between state 0 (reward 0) and state 1 (reward 10): V(0) = 0."""

    episode = 0

    def first(self) -> int:
        self.episode += 1
        return self.episode % 2

    def move(self, action: int) -> tuple[float, bool, bool]:
        return 10.0 * self.state, True, False


class PoisonedRestarts(SyncVectorEnv):
    """A vector environment whose NEXT_STEP restarts have a reward of a million, which must have no effect."""

    def step(self, actions: Any) -> Any:
        restarting = self._autoreset_envs.copy()
        observations, rewards, *rest = super().step(actions)
        return observations, np.where(restarting, 1e6, rewards), *rest


def envs_in(world: type[World], n: int = 8, mode: AutoresetMode = AutoresetMode.NEXT_STEP, seed: int = 0) -> Envs:
    return Envs(SyncVectorEnv([world] * n, autoreset_mode=mode), seed)


def rollout_of(agent: Any, n_steps: int) -> Rollout:
    """Let A2C or PPO act for a number of steps."""
    agent.config = dataclasses.replace(agent.config, n_steps=n_steps)
    rollout: Rollout = agent.rollout()
    return rollout


def one_hot(states: int) -> np.ndarray:
    return np.eye(states, dtype=np.float32)


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
