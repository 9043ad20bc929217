"""DQN (Mnih et al. 2015) and, with all its switches on, Rainbow (Hessel et al. 2018).

act: argmax Q(s, ·), but with probability ε, or by noise in the weights, something else
store (s, a, r, s′); for every multiple of ``train_freq`` steps take ``gradient_steps`` gradient steps, each on a batch:
    y = returns + discounts · Q_target(s′, argmax Q_target(s′, ·))        double: argmax Q_online(s′, ·)
    descend on Huber(Q(s, a) − y), or on KL(y ‖ p(s, a)) between distributions
Q_target ← Q every ``target_update_interval`` steps
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.learner import QLearner
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.checks import observation_bytes
from automl_ext.rl.networks.action_spaces import unsupported
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.rl.replay.uniform import UniformReplay
from automl_ext.training.memory import check_memory
from automl_ext.training.seeding import derived_seed, numpy_generator_state, set_numpy_generator_state


class DQN:
    """The agent; see :class:`automl_ext.rl.loop.loop.Agent`.

    Args:
        config: also says which environments, unless they are given.
        envs: environments of its own to act in.

    Raises:
        UserError: an action space that is not Discrete, observations that no network here reads, a replay or
            environments that do not fit into memory.
    """

    def __init__(self, config: DQNConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.envs = envs or loop.envs_of(config, config.n_envs, config.seed)
        self.actions, self._first = discrete(self.envs.action_space)
        seeds = [derived_seed(config.seed, i) for i in range(4)]
        self.learner = QLearner(config, self.envs.observation_space, self.actions, (seeds[0], seeds[1]))
        self.rng = np.random.default_rng(seeds[2])  # of exploration
        self.replay = make_replay(config, self.envs.observation_space, self.envs.n_envs, seeds[3])

    def iterate(self) -> dict[str, Any]:
        """Steps up to the next multiple of ``train_freq``, then the gradient steps of all multiples that were passed.

        One step of more environments than ``train_freq`` passes several multiples.
        """
        envs, config = self.envs, self.config
        before = envs.steps
        until = (before // config.train_freq + 1) * config.train_freq
        while envs.steps < until:
            actions = self.explore(envs.observations)
            step = envs.step(actions + self._first if self._first else actions)
            self.replay.add(step.observations, actions, *step[2:])
            self.learner.saw(step.observations)
        measured: dict[str, Any] = {"epsilon": self.epsilon}
        first = (max(before, config.learning_starts) // config.train_freq + 1) * config.train_freq
        losses = []
        for mark in range(first, envs.steps + 1, config.train_freq):
            # The online network has not changed since the last mark, so the time of the copy in between is free.
            if loop.multiples(mark - config.train_freq, mark, config.target_update_interval):
                self.learner.sync_target()
            losses.append(self.learner.update(self.replay, config.updates_each))
        if losses:
            measured["loss"] = torch.stack(losses).mean()
        return measured

    @property
    def epsilon(self) -> float:
        """The share of random actions now."""
        config, steps = self.config, self.envs.steps
        if steps < config.learning_starts:
            return 1.0
        if config.noisy:
            return 0.0
        fallen = min(steps / max(config.exploration_fraction * config.total_steps, 1.0), 1.0)
        return 1.0 + (config.final_epsilon - 1.0) * fallen

    def explore(self, observations: np.ndarray) -> np.ndarray:
        """Actions 0 … A − 1 to learn from, int64 [B]."""
        epsilon, n = self.epsilon, len(observations)
        if epsilon == 0.0:
            return self.learner.best_actions(observations).numpy(force=True)
        at_random = self.rng.random(n) < epsilon
        actions = self.rng.integers(self.actions, size=n)
        if not at_random.all():
            best = self.learner.best_actions(observations).numpy(force=True)
            actions = np.where(at_random, actions, best)
        return actions

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.learner.online.eval()
        actions = self.learner.best_actions(observations).numpy(force=True)
        self.learner.online.train()
        return actions + self._first

    def policy_state(self) -> dict[str, Tensor]:
        return self.learner.online.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.learner.online.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "rng": numpy_generator_state(self.rng),
            "envs": self.envs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        set_numpy_generator_state(self.rng, state["rng"])
        if not self.envs.load_state_dict(state["envs"]):
            self.replay.cut()


def discrete(space: gymnasium.Space) -> tuple[int, int]:
    """How many actions there are, and the first one's number.

    Raises:
        UserError: the space is not Discrete.
    """
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise unsupported(space)
    return int(space.n), int(space.start)


def make_replay(
    config: DQNConfig, space: gymnasium.Space, n_envs: int, seed: int, capacity: int | None = None
) -> UniformReplay:
    """Of observations in their own dtype, as the configuration wants it; ``capacity`` None: its ``buffer_size``."""
    if capacity is None:
        capacity = config.buffer_size
        row = observation_bytes(space) + (42 if config.prioritized else 32)
        check_memory("buffer_size", capacity * row)
        check_memory("batch_size", config.batch_size * (2 * observation_bytes(space) + 4 * sum(config.hidden)))
    options: dict[str, Any] = {
        "generator": np.random.default_rng(seed),
        "n_envs": n_envs,
        "n_step": config.n_step,
        "gamma": config.gamma,
        "device": config.device,
    }
    if not config.prioritized:
        return UniformReplay(capacity, space.shape or (), space.dtype, **options)
    last = -(-config.total_steps // config.train_freq) * config.train_freq  # training ends at a multiple
    updates = loop.multiples(config.learning_starts, last, config.train_freq) * config.updates_each
    options |= {"alpha": config.alpha, "beta": config.beta, "beta_steps": max(updates, 1)}
    return PrioritizedReplay(capacity, space.shape or (), space.dtype, **options)


def train(
    config: DQNConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train inside a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("dqn", DQN, config, out, resume, stop_after)
