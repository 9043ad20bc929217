"""Small environments with known results, and a deterministic agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.train_config import TrainConfig, envs_of
from automl_ext.training.seeding import generator


class Scripted(gymnasium.Env):
    """An environment with observations [env, episode, step] and reward action + 10 × step.

    Episode k has 2 + (env + k) % 3 steps. Even episodes terminate, odd ones are truncated.

    Args:
        env: number of the environment.
        bad: (what, env, episode, step), where the reward is NaN or the observation infinite.
    """

    def __init__(self, env: int, bad: tuple[str, int, int, int] | None = None) -> None:
        self.observation_space = spaces.Box(-1, 100, (3,), np.float32)
        self.action_space = spaces.Discrete(5)
        self.env, self.bad, self.episode = env, bad, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == 2 + (self.env + self.episode) % 3
        natural = self.episode % 2 == 0
        reward, observation = float(action) + 10 * self.t, self._observe()
        if self.bad is not None and self.bad[1:] == (self.env, self.episode, self.t):
            if self.bad[0] == "reward":
                reward = float("nan")
            else:
                observation[1] = float("inf")
        return observation, reward, over and natural, over and not natural, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.env, self.episode, self.t], np.float32)


@dataclass
class ToyConfig(TrainConfig):
    total_steps: int = 400
    n_envs: int = 2
    eval_every: int = 100
    eval_episodes: int = 2
    final_episodes: int = 3
    checkpoint_every: int = 60
    sick_at: int = 0  # from this step on the loss is NaN; if negative, the weights from its absolute value on


class Toy(Agent):
    """A linear policy that changes at random. Its results depend only on its own state."""

    algorithm = "toy"

    def __init__(self, config: ToyConfig, envs: Any = None) -> None:
        self.config = config
        self.envs = envs or envs_of(config, config.n_envs, config.seed)
        self.generator = generator(config.seed)
        self.weights = torch.randn(self.envs.observation_space.shape[0], 2, generator=self.generator)

    def iterate(self) -> dict[str, Any]:
        for _ in range(3):
            logits = torch.from_numpy(self.envs.observations) @ self.weights
            noise = torch.rand(logits.shape, generator=self.generator)
            step = self.envs.step((logits + noise).argmax(1).numpy())
            self.weights += 0.01 * torch.from_numpy(step.next_observations).T @ noise * float(step.rewards.mean())
        sick = self.config.sick_at
        if sick < 0 and self.envs.steps >= -sick:
            self.weights[0, 0] = float("nan")
        loss = self.weights.square().mean() if sick >= 0 else 0.0
        return {"loss": loss * float("nan") if 0 < sick <= self.envs.steps else loss, "ones": 1}

    def act(self, observations: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(observations) @ self.weights).argmax(1).numpy()

    def policy_state(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.weights = state["weights"].clone()

    def state_dict(self) -> dict[str, Any]:
        return self.policy_state() | {"envs": self.envs.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_policy_state(state)
        self.envs.load_state_dict(state["envs"])
        self.generator.set_state(state["generator"])
