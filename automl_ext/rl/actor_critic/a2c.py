"""A2C: advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, https://arxiv.org/abs/1602.01783)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from automl_ext import gae
from automl_ext.rl.actor_critic.losses import policy_gradient_loss, value_loss
from automl_ext.rl.envs.rollouts import Rollout, collect
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import Agent, TrainConfig, envs_of
from automl_ext.rl.loop.checks import check_hidden, check_max_grad_norm, observation_bytes
from automl_ext.rl.networks.actor_critic import ActorCritic, acting
from automl_ext.rl.networks.parameters import clip_norm, flatten_parameters
from automl_ext.training.checks import check_range
from automl_ext.training.device import choose_device
from automl_ext.training.memory import check_memory
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state


@dataclass
class A2CConfig(TrainConfig):
    """The defaults are for CartPole-v1: Stable-Baselines3's, but for the learning rate. There it stays at 7e-4 and
    policies come and go; falling from 3e-3 to 0 it ends with one that stays good."""

    n_envs: int = 8
    n_steps: int = 5  # per environment and update
    gamma: float = 0.99
    gae_lambda: float = 1.0  # 1: n-step returns; below 1: generalised advantage estimation
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    lr: float = 3e-3
    lr_decay: bool = True  # linearly to 0 at total_steps
    vf_coef: float = 0.5
    ent_coef: float = 0.0
    max_grad_norm: float = 0.5  # the gradient is scaled down to this norm; inf: no clipping
    hidden: tuple[int, ...] = (64, 64)
    normalize: bool = False  # observations, by their running mean and standard deviation

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_steps", low=1)
        check_range(self, "gamma", "gae_lambda", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "vf_coef", "ent_coef", low=0)
        check_max_grad_norm(self)
        check_hidden(self)


class A2C(Agent):
    """n_steps in every environment, then one step down the gradient of policy, value and entropy together.

    The outcome follows from the configuration, bit for bit, on one machine with one number of threads. The initial
    weights are the same for every number of threads. Training may round differently with another number: PyTorch splits
    sums of more than 32,768 elements by threads (here the gradient's norm of a large network), and a BLAS may split
    large products.

    Args:
        config: all that decides the outcome.
        envs: to train in; made from the configuration where None.

    Raises:
        UserError: spaces that no network covers; environments or a rollout that do not fit into memory.
    """

    envs: Envs

    def __init__(self, config: A2CConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.envs = envs if envs is not None else envs_of(config, config.n_envs, config.seed)
        row = observation_bytes(self.envs.observation_space) + 4 * sum(config.hidden)
        check_memory("n_steps", config.n_steps * self.envs.n_envs * row)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.manual_seed(config.seed)
            network = ActorCritic(self.envs.observation_space, self.envs.action_space, config.hidden, config.normalize)
        self.network = network.to(self.device)
        self.parameters = flatten_parameters(self.network)
        self.optimizer = make_optimizer(config, self.parameters)
        self.outputs = acting(self.network, self.device)
        self.rng = np.random.default_rng(config.seed)

    def iterate(self) -> dict[str, Any]:
        measured = self.accumulate_gradient()
        config = self.config
        if config.lr_decay:
            remaining = max(0.0, 1 - self.envs.steps / config.total_steps)
            self.optimizer.param_groups[0]["lr"] = config.lr * remaining
        self.optimizer.step()
        return measured

    def accumulate_gradient(self) -> dict[str, Any]:
        """Act, and leave the clipped gradient of the loss in ``parameters.grad``."""
        rollout = collect(self.envs, self.sample, self.config.n_steps, self.device)
        loss, measured = self.loss(rollout)
        gradient = self.parameters.grad  # the network's gradients are views of it
        assert gradient is not None
        gradient.zero_()
        loss.backward()
        self.network.saw(rollout.observations)  # not before: the rollout's actions and its loss see the same network
        measured["grad_norm"] = clip_norm(gradient, self.config.max_grad_norm)
        return measured

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Any]]:
        """−A log π + vf_coef (G − V)² − ent_coef H, averaged over the rollout's transitions."""
        config, distribution = self.config, self.network.distribution
        outputs, all_values = self.network(rollout.observations)
        sequences = rollout.rewards, *rollout.split_values(all_values.detach()), rollout.terminated, rollout.truncated
        advantages, returns = gae(*sequences, config.gamma, config.gae_lambda, valid=rollout.valid)
        acted = len(rollout.actions)
        outputs, values, weights = outputs[:acted], all_values[:acted], rollout.weights
        log_probs = distribution.log_probs(outputs, rollout.actions)
        policy = policy_gradient_loss(log_probs, advantages.flatten(), weights)
        value = value_loss(values, returns.flatten(), weights)
        loss = policy + config.vf_coef * value
        with torch.set_grad_enabled(config.ent_coef != 0):  # else it is only measured
            entropy = torch.dot(distribution.entropy(outputs), weights)
        if config.ent_coef:
            loss = loss - config.ent_coef * entropy
        return loss, {"policy_loss": policy.detach(), "value_loss": value.detach(), "entropy": entropy.detach()}

    def sample(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw actions: as drawn, and as the environment wants them."""
        distribution = self.network.distribution
        actions = distribution.sample(self.outputs(observations), self.rng)
        return actions, distribution.to_env(actions)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The most probable actions."""
        distribution = self.network.distribution
        return distribution.to_env(distribution.mode(self.outputs(observations)))

    def policy_state(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": numpy_generator_state(self.rng),
            "envs": self.envs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_numpy_generator_state(self.rng, state["rng"])
        self.envs.load_state_dict(state["envs"])


def make_optimizer(config: A2CConfig, parameters: torch.nn.Parameter) -> torch.optim.Optimizer:
    """Over the one vector of all parameters."""
    if config.optimizer == "adam":
        return torch.optim.Adam([parameters], config.lr, eps=1e-5)
    return torch.optim.RMSprop([parameters], config.lr, alpha=0.99, eps=1e-5, foreach=False)


def train(
    config: A2CConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("a2c", A2C, config, out, resume, stop_after)
