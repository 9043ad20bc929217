"""VDN: value-decomposition networks (Sunehag et al. 2017, https://arxiv.org/abs/1706.05296).

A team shares one reward, here the mean of the agents' rewards. Q-learning of the team's value Q_tot(s, a), which is a
function of the agents' values Q_i(o_i, a_i): their sum in VDN, a monotonic network in QMIX. Each agent then acts
greedily by its own Q_i, and together they act greedily by Q_tot.

The agents share one network, which reads from the observation which agent it is. Policies have no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.dqn.agent import discrete
from automl_ext.rl.envs.tasks import SEPARATOR
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import TrainConfig, envs_of, last_before
from automl_ext.rl.loop.checks import check_hidden, check_max_grad_norm, observation_bytes
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.multi_agent.mixers import Sum
from automl_ext.rl.multi_agent.team import TeamLearner, TeamNetwork, team_step
from automl_ext.rl.networks.groups import GroupedBox
from automl_ext.rl.replay.uniform import UniformReplay
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.seeding import derived_seed, numpy_generator_state, set_numpy_generator_state


@dataclass
class VDNConfig(TrainConfig):
    """Configuration of VDN. The defaults are for the two-step game, where agents act at random during training, as in
    QMIX's paper. A step is one step of one agent.

    Raises:
        ValueError: a number out of range.
    """

    env_id: str = "pettingzoo/automl_ext.rl.multi_agent.two_step"
    """Environment of several agents, for example pettingzoo/mpe2.simple_spread_v3."""
    total_steps: int = 40_000  # Steps to train for, summed over agents and copies.
    eval_every: int = 4_000  # Steps between evaluations.
    n_envs: int = 8  # Number of copies of the environment.
    gamma: float = 0.99  # Discount factor.
    lr: float = 1e-3  # Learning rate of Adam.
    max_grad_norm: float = 10.0  # Gradient norm to clip at; inf: no clipping.
    hidden: tuple[int, ...] = (64,)  # Units of each hidden layer of the agents' network.
    batch_size: int = 32  # Joint transitions per gradient step.
    buffer_size: int = 5_000  # Capacity of the replay, in joint transitions.
    learning_starts: int = 500  # Steps before training starts.
    gradient_steps: int = 1  # Gradient steps after every step of all copies.
    target_update_interval: int = 100  # Gradient steps between updates of the target network.
    exploration_fraction: float = 0.5  # Fraction of total_steps over which epsilon falls from 1 to final_epsilon.
    final_epsilon: float = 1.0  # Probability of a random action after exploration_fraction.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", "buffer_size", "gradient_steps", "target_update_interval", low=1)
        check_range(self, "learning_starts", low=0)
        check_range(self, "gamma", "exploration_fraction", "final_epsilon", low=0, high=1)
        check_range(self, "lr", above=0)
        check_max_grad_norm(self)
        check_hidden(self)
        if SEPARATOR in self.env_id:
            raise ValueError(f"env_id: expected one environment of several agents, got several tasks: {self.env_id}")
        if self.buffer_size < self.n_envs:
            raise ValueError(f"buffer_size: expected at least n_envs ({self.n_envs}), got {self.buffer_size}")


class VDN(LearningAgent):
    """The VDN agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments, lanes of agents. The agent owns them.

    Raises:
        UserError: not an environment of several agents, actions that are not Discrete, or a replay or environments
            that do not fit into memory.
    """

    envs: Envs
    algorithm = "vdn"

    def __init__(self, config: VDNConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.envs = envs or envs_of(config, config.n_envs, config.seed)
        space = self.envs.observation_space
        if not isinstance(space, GroupedBox) or len(space.shape) != 1:
            raise UserError(
                f"--env-id {config.env_id}: expected an environment of several agents with vectors of observations, "
                f"got {short(space)}"
            )
        self.actions, self._first = discrete(self.envs.action_space)
        self.agents, self.device = len(space.names), choose_device(config.device)
        seeds = [derived_seed(config.seed, i) for i in range(3)]
        with torch.random.fork_rng(devices=[]):  # leave the caller's random state unchanged
            torch.manual_seed(seeds[0])
            network = TeamNetwork(space, self.actions, config.hidden, self.mixer(space)).to(self.device)
        settings = config.lr, config.max_grad_norm, config.target_update_interval
        self.learner = TeamLearner(network, *settings)
        self.rng = np.random.default_rng(seeds[1])  # for exploration
        check_memory("buffer_size", config.buffer_size * self.agents * (observation_bytes(space) + 8))
        self.replay = UniformReplay(
            config.buffer_size,
            (self.agents, *space.shape),
            action_shape=(self.agents,),
            generator=np.random.default_rng(seeds[2]),
            n_envs=self.envs.n_envs // self.agents,
            gamma=config.gamma,
            device=self.device,
        )

    def mixer(self, space: GroupedBox) -> nn.Module:
        """Build the function that mixes the agents' values."""
        return Sum()

    def iterate(self) -> dict[str, Any]:
        """Act once in every copy, then update; return scalar metrics."""
        config, epsilon = self.config, self.epsilon
        observations = self.envs.observations
        at_random = self.rng.random(len(observations)) < epsilon
        randoms = self.rng.integers(self.actions, size=len(observations))
        actions = np.where(at_random, randoms, self.greedy(observations))
        step = self.envs.step(actions + self._first)
        self.replay.add(team_step(step._replace(actions=actions), self.agents))
        metrics: dict[str, Any] = {"epsilon": epsilon}
        if self.envs.steps >= config.learning_starts:
            losses = [self.learner.update(self.replay, config.batch_size) for _ in range(config.gradient_steps)]
            metrics["loss"] = torch.stack(losses).mean()
        return metrics

    @property
    def updates(self) -> int:
        """The number of gradient steps so far."""
        return self.learner.updates

    @property
    def delay(self) -> tuple[str, int]:
        return "learning_starts", last_before(self.config.learning_starts, 1, self.envs.n_envs)

    @property
    def epsilon(self) -> float:
        """The current probability of a random action."""
        config, steps = self.config, self.envs.steps
        progress = min(steps / max(config.exploration_fraction * config.total_steps, 1.0), 1.0)
        return 1.0 if steps < config.learning_starts else 1.0 + (config.final_epsilon - 1.0) * progress

    @torch.inference_mode()
    def greedy(self, observations: np.ndarray) -> np.ndarray:
        """Return the agents' greedy actions in 0 … actions − 1, int64 [B]."""
        q: Tensor = self.learner.online(torch.as_tensor(observations, device=self.device))
        return q.argmax(1).numpy(force=True)

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.greedy(observations) + self._first

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions, replaced by random ones with probability ``final_epsilon``."""
        at_random = self.random.random(len(observations)) < self.config.final_epsilon
        actions = self.random.integers(self.actions, size=len(observations)) + self._first
        return np.where(at_random, actions, self.act(observations))

    def set_policy(self, policy: dict[str, Any]) -> None:
        self.load_policy_state(policy)
        self.learner.target.load_state_dict(policy)

    def policy_state(self) -> dict[str, Any]:
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


def train(
    config: VDNConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train VDN in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("vdn", VDN, config, out, resume, stop_after)
