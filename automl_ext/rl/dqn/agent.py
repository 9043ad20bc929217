"""DQN (Mnih et al. 2015) and, with all its switches on, Rainbow (Hessel et al. 2018).

act ε-greedily: argmax Q(s, ·), or a random action with probability ε; noisy: ε = 0, argmax of Q with new noise
store (s, a, r, s′); every ``train_freq`` steps take ``gradient_steps`` gradient steps, each on a batch:
    y = returns + discounts · Q_target(s′, argmax Q_target(s′, ·))        double: argmax Q_online(s′, ·)
    minimize Huber(Q(s, a) − y); distributional: KL(y ‖ p(s, a))
Q_target ← Q every ``target_update_interval`` steps
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.learner import QLearner
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.exploration.bonus import explore_batches
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import envs_of, last_before, multiples
from automl_ext.rl.loop.checks import observation_bytes, warn_without_effect
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.networks.action_spaces import unsupported
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.rl.replay.uniform import UniformReplay
from automl_ext.rl.shaping.shaping import shape_rewards
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.seeding import derived_seed, numpy_generator_state, set_numpy_generator_state


class DQN(LearningAgent):
    """The DQN agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`; it is trained
            with the values. Runs and saved agents do not contain its architecture.

    Raises:
        UserError: an action space that is not Discrete, an unsupported observation space, a replay or environments
            that do not fit into memory.
    """

    envs: Envs
    algorithm = "dqn"

    def __init__(self, config: DQNConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        self.config = config
        self.envs = envs or envs_of(config, config.n_envs, config.seed)
        shape_rewards(self.envs, config.potential, config.gamma)
        self.actions, self._first = discrete(self.envs.action_space)
        seeds = [derived_seed(config.seed, i) for i in range(4)]
        space = self.envs.observation_space
        self.learner = QLearner(config, space, self.actions, (seeds[0], seeds[1]), encoder)
        self.rng = np.random.default_rng(seeds[2])  # for epsilon-greedy exploration
        self.replay = make_replay(config, space, self.envs.n_envs, seeds[3])
        warn_without_effect(config, "bonus", "bonus_weight")
        warn_without_effect(config, "augment", "augment_shift")
        warn_without_effect(config, "auxiliary", "auxiliary_weight")
        self.bonus = explore_batches(
            config.bonus, config.bonus_weight, self.envs, config.gamma, config.seed, self.learner.device
        )
        if self.bonus is not None:
            self.learner.transform = self.bonus

    def iterate(self) -> dict[str, Any]:
        """Act up to the next multiple of ``train_freq`` steps, then update; return scalar metrics.

        There is one update for each multiple of ``train_freq`` that was passed. One step of more environments than
        ``train_freq`` passes several multiples.
        """
        envs, config = self.envs, self.config
        before = envs.steps
        until = (before // config.train_freq + 1) * config.train_freq
        while envs.steps < until:
            actions = self.explore(envs.observations)
            step = envs.step(actions + self._first if self._first else actions)
            self.replay.add(step._replace(actions=actions))
            self.learner.update_statistics(step.observations)
        metrics: dict[str, Any] = {"epsilon": self.epsilon}
        first = (max(before, config.learning_starts) // config.train_freq + 1) * config.train_freq
        losses = []
        for multiple in range(first, envs.steps + 1, config.train_freq):
            # The online network has not changed since the last multiple, so a late copy gives the same target network.
            if multiples(multiple - config.train_freq, multiple, config.target_update_interval):
                self.learner.sync_target()
            self.learner.schedule(multiple / config.total_steps)
            losses.append(self.learner.update(self.replay, config.updates_each))
        if losses:
            metrics |= {"loss": torch.stack(losses).mean()} | self.learner.measured
        if self.bonus is not None:
            metrics |= self.bonus.measured()
        return metrics

    @property
    def updates(self) -> int:
        """The number of gradient steps so far."""
        return self.learner.updates

    @property
    def delay(self) -> tuple[str, int]:
        every = self.config.train_freq
        first = (self.config.learning_starts // every + 1) * every  # number of steps at the first update
        return "learning_starts", last_before(first, every, self.envs.n_envs)

    @property
    def epsilon(self) -> float:
        """The current probability of a random action."""
        config, steps = self.config, self.envs.steps
        if steps < config.learning_starts:
            return 1.0
        if config.noisy:
            return 0.0
        progress = min(steps / max(config.exploration_fraction * config.total_steps, 1.0), 1.0)
        return 1.0 + (config.final_epsilon - 1.0) * progress

    def explore(self, observations: np.ndarray) -> np.ndarray:
        """Sample training actions in 0 … A − 1, int64 [B]."""
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
        """Return the greedy actions, without noise in the weights."""
        self.learner.online.eval()
        actions = self.learner.best_actions(observations).numpy(force=True)
        self.learner.online.train()
        return actions + self._first

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions, replaced by random ones with probability ``final_epsilon``."""
        actions, n = self.act(observations), len(observations)
        at_random = self.random.random(n) < self.config.final_epsilon
        return np.where(at_random, self.random.integers(self.actions, size=n) + self._first, actions)

    def set_policy(self, policy: dict[str, Any]) -> None:
        self.load_policy_state(policy)
        self.learner.sync_target()

    def set_total_steps(self, total_steps: int) -> None:
        super().set_total_steps(total_steps)
        if isinstance(self.replay, PrioritizedReplay):
            self.replay.beta_steps = beta_steps(self.config)

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
    """Return the number of actions and the first action of a Discrete space.

    Raises:
        UserError: the space is not Discrete.
    """
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise unsupported(space)
    return int(space.n), int(space.start)


def make_replay(
    config: DQNConfig, space: gymnasium.Space, n_envs: int, seed: int, capacity: int | None = None
) -> UniformReplay:
    """Build the replay of a configuration. It stores observations in their own dtype.

    Args:
        config: settings of the replay.
        space: observation space.
        n_envs: number of environments.
        seed: seed of the sampling.
        capacity: in transitions; None: ``config.buffer_size``.

    Raises:
        UserError: the replay or a batch does not fit into memory.
    """
    if capacity is None:
        capacity = config.buffer_size
        row = observation_bytes(space) + (42 if config.prioritized else 32)  # bytes per transition
        check_memory("buffer_size", capacity * row)
        check_memory("batch_size", config.batch_size * (2 * observation_bytes(space) + 4 * sum(config.hidden)))
    options: dict[str, Any] = {
        "generator": np.random.default_rng(seed),
        "n_envs": n_envs,
        "n_step": config.n_step,
        "gamma": config.gamma,
        "device": choose_device(config.device),
    }
    if not config.prioritized:
        return UniformReplay(capacity, space.shape or (), space.dtype, **options)
    options |= {"alpha": config.alpha, "beta": config.beta, "beta_steps": beta_steps(config)}
    return PrioritizedReplay(capacity, space.shape or (), space.dtype, **options)


def beta_steps(config: DQNConfig) -> int:
    """Return the number of gradient steps of the whole training, over which β of a prioritized replay rises to 1."""
    last = -(-config.total_steps // config.train_freq) * config.train_freq  # steps at the end of training
    return max(multiples(config.learning_starts, last, config.train_freq) * config.updates_each, 1)


def train(
    config: DQNConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train DQN in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("dqn", DQN, config, out, resume, stop_after)
