"""VDN: value-decomposition networks (Sunehag et al. 2017, https://arxiv.org/abs/1706.05296).

act ε-greedily, each agent by its own Q_i; store the joint step; on a batch of joint steps:
    y = r + γ Q_tot_target(s′, argmax Q_i(o′_i, ·))        double Q-learning: the online networks choose the actions
    minimize (Q_tot(s, a) − y)²,  Q_tot = Σ Q_i
Q_target ← Q every ``target_update_interval`` gradient steps

A team shares one reward, here the mean of the agents' rewards. The algorithm is Q-learning of the team's value
Q_tot(s, a), which is computed from the agents' values Q_i(o_i, a_i): by their sum in VDN, by a monotonic network in
QMIX. If each agent acts greedily by its own Q_i, they together act greedily by Q_tot.

The agents share one network, whose input contains the agent's one-hot vector. Policies have no memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.ops.networks import FusedMLP
from automl_ext.rl.envs.groups import GroupedBox, check_nothing_hidden
from automl_ext.rl.envs.packed import byte_scale, observation_bytes
from automl_ext.rl.envs.tasks import SEPARATOR
from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.train_config import TrainConfig, envs_of
from automl_ext.rl.networks.action_spaces import discrete
from automl_ext.rl.networks.parameters import (
    FlatAdam,
    check_hidden,
    check_max_grad_norm,
    clipped_gradient,
    flatten_parameters,
)
from automl_ext.rl.replay.uniform import Batch, UniformReplay
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, numpy_generator_state, seeded, set_numpy_generator_state


@dataclass
class VDNConfig(TrainConfig):
    """Configuration of VDN. The defaults are for the two-step game, where agents act at random during training, as in
    QMIX's paper. A step is one step of one agent.

    Raises:
        ValueError: a number out of range.
    """

    env_id: str = "pettingzoo/automl_ext.rl.envs.two_step"
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


class Sum(nn.Module):
    """Q_tot = Σ Q_i (VDN, Sunehag et al. 2017, https://arxiv.org/abs/1706.05296)."""

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mix the agents' values [N, A] to [N]; the state [N, S] has no effect."""
        return values.sum(1)


class TeamNetwork(nn.Module):
    """Q_i(o_i, ·) of every agent, with shared weights, and the mixing function.

    Args:
        space: observation space of an agent, a vector.
        actions: number of actions.
        hidden: sizes of the hidden layers.
        mixer: maps the agents' values [N, A] and the state [N, S] to the value of the team [N].
    """

    def __init__(self, space: GroupedBox, actions: int, hidden: tuple[int, ...], mixer: nn.Module) -> None:
        super().__init__()
        self.own, self.scale = space.own, byte_scale(space)
        self.agents = FusedMLP(space.shape[0], hidden, actions, "relu")
        self.mixer = mixer

    def forward(self, observations: Tensor) -> Tensor:
        """Compute Q_i [..., actions] of observations [..., L]."""
        q: Tensor = self.agents(observations.float() * self.scale)
        return q

    def total(self, values: Tensor, observations: Tensor) -> Tensor:
        """Mix values [N, A]. The state consists of all agents' observations [N, A, L], without the one-hot vectors."""
        mixed: Tensor = self.mixer(values, observations[..., : self.own].flatten(1) * self.scale)
        return mixed


def vdn_loss(online: TeamNetwork, target: TeamNetwork, batch: Batch) -> Tensor:
    """Compute E[(Q_tot(s, a) − y)²], y = r + γ Q_tot_target(s′, argmax Q_i(o′_i, ·)), over joint transitions; 0-dim.

    Args:
        online, target: the networks; ``online`` chooses the next actions.
        batch: observations [N, A, L], actions [N, A].
    """
    with torch.no_grad():
        best = online(batch.next_observations).argmax(2, keepdim=True)
        values = target(batch.next_observations).gather(2, best).squeeze(2)
        targets = batch.returns + batch.discounts * target.total(values, batch.next_observations)
    chosen = online(batch.observations).gather(2, batch.actions.unsqueeze(2)).squeeze(2)
    return F.mse_loss(online.total(chosen, batch.observations), targets)


class VDN(Agent):
    """The VDN agent; see :class:`automl_ext.rl.loop.agent.Agent`.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments, lanes of agents. The agent owns them.

    Raises:
        UserError: not an environment of several agents, actions that are not Discrete, or a replay or environments
            that do not fit into memory.
    """

    envs: Envs
    updates: int
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
        check_nothing_hidden(space)
        self.actions, self._first = discrete(self.envs.action_space)
        self.agents, self.device = len(space.names), choose_device(config.device)
        seeds = [derived_seed(config.seed, i) for i in range(3)]
        with seeded(seeds[0]):
            self.online = TeamNetwork(space, self.actions, config.hidden, self.mixer(space)).to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.parameters, self._target_parameters = flatten_parameters(self.online), flatten_parameters(self.target)
        self.optimizer = FlatAdam(self.parameters, config.lr)
        self.updates = 0
        self.rng = np.random.default_rng(seeds[1])  # for exploration
        check_memory("buffer_size", config.buffer_size * self.agents * (observation_bytes(space) + 8))
        self.replay = UniformReplay(
            config.buffer_size,
            (self.agents, *space.shape),
            observation_dtype=space.dtype,
            action_shape=(self.agents,),
            generator=np.random.default_rng(seeds[2]),
            n_envs=self.envs.n_envs // self.agents,
            gamma=config.gamma,
            device=self.device,
        )
        self.attach_extras()

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
        self.replay.add(by_team(step._replace(actions=actions), self.agents))
        metrics: dict[str, Any] = {"epsilon": epsilon}
        if self.envs.steps >= config.learning_starts:
            losses = [self.update() for _ in range(config.gradient_steps)]
            metrics["loss"] = torch.stack(losses).mean()
        return metrics

    def update(self) -> Tensor:
        """Take one gradient step; return the loss, 0-dim."""
        config = self.config
        if self.updates % config.target_update_interval == 0:
            self._target_parameters.data.copy_(self.parameters.data)
        loss = vdn_loss(self.online, self.target, self.replay.sample(config.batch_size))
        clipped_gradient(loss, self.parameters, config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        return loss.detach()

    @property
    def epsilon(self) -> float:
        """The current probability of a random action."""
        config, steps = self.config, self.envs.steps
        progress = min(steps / max(config.exploration_fraction * config.total_steps, 1.0), 1.0)
        return 1.0 if steps < config.learning_starts else 1.0 + (config.final_epsilon - 1.0) * progress

    @torch.inference_mode()
    def greedy(self, observations: np.ndarray) -> np.ndarray:
        """Return the agents' greedy actions in 0 … actions − 1, int64 [B]."""
        q: Tensor = self.online(torch.as_tensor(observations, device=self.device))
        return q.argmax(1).numpy(force=True)

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.greedy(observations) + self._first

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions, replaced by random ones with probability ``final_epsilon``."""
        at_random = self.random.random(len(observations)) < self.config.final_epsilon
        actions = self.random.integers(self.actions, size=len(observations)) + self._first
        return np.where(at_random, actions, self.act(observations))

    def set_policy(self, policy: dict[str, Any]) -> None:
        super().set_policy(policy)
        self.target.load_state_dict(policy)

    def policy_state(self) -> dict[str, Any]:
        return self.online.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "replay": self.replay.state_dict(),
            "rng": numpy_generator_state(self.rng),
            "envs": self.envs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.updates = state["updates"]
        self.replay.load_state_dict(state["replay"])
        set_numpy_generator_state(self.rng, state["rng"])
        if not self.envs.load_state_dict(state["envs"]):
            self.cut()

    def cut(self) -> None:
        self.replay.cut()


def by_team(step: Step, agents: int) -> Step:
    """Convert a step of the lanes, [C · A, ...], to a step of the copies: [C, A, ...], with the mean of the rewards.

    Raises:
        UserError: the agents of a copy do not end their episode together.
    """
    terminated, truncated = (x.reshape(-1, agents) for x in (step.terminated, step.truncated))
    if (terminated != terminated[:, :1]).any() or (truncated != truncated[:, :1]).any():
        raise UserError("team: expected an environment whose agents all end in the same step")
    observations, actions, next_observations = (
        x.reshape(-1, agents, *x.shape[1:]) for x in (step.observations, step.actions, step.next_observations)
    )
    rewards = step.rewards.reshape(-1, agents).mean(1)
    ends = terminated[:, 0], truncated[:, 0]
    return Step(observations, actions, rewards, next_observations, *ends, np.ones(len(rewards), bool))
