"""A2C: advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, https://arxiv.org/abs/1602.01783).

repeat:
    act for ``n_steps`` in every environment
    G_t, A_t ← n-step returns and advantages, or λ-returns and advantages of GAE
    one step of the optimizer on  −A log π(a|s) + vf_coef (G − V)² − ent_coef H(π)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from automl_ext import gae
from automl_ext.rl.actor_critic.losses import policy_gradient_loss, value_loss
from automl_ext.rl.actor_critic.policy_gradient import (
    PolicyGradientAgent,
    PolicyGradientConfig,
    clipped_gradient,
    make_network,
)
from automl_ext.rl.envs.rollouts import Rollout, collect
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import envs_of
from automl_ext.rl.loop.checks import observation_bytes
from automl_ext.rl.loop.extensions import Acted, total_loss
from automl_ext.rl.networks.actor_critic import acting
from automl_ext.rl.networks.grouped import GroupedActorCritic, popart_of
from automl_ext.rl.networks.parameters import flatten_parameters
from automl_ext.training.checks import check_range
from automl_ext.training.device import choose_device
from automl_ext.training.memory import check_memory


@dataclass
class A2CConfig(PolicyGradientConfig):
    """Configuration of A2C.

    The defaults are for CartPole-v1. They are those of Stable-Baselines3 except for the learning rate: it decays
    linearly from 3e-3 to 0 instead of being 7e-4 throughout, so that late updates do not destroy a good policy.
    """

    n_steps: int = 5  # Steps per environment and update.
    gae_lambda: float = 1.0  # λ of generalized advantage estimation. 0: trust the next value; 1: n-step returns.
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"  # Optimization algorithm.
    lr_decay: bool = True  # Decrease the learning rate linearly to 0 at total_steps.
    popart: bool = False  # Normalize the values of each task, and its advantages, by PopArt.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_steps", low=1)
        check_range(self, "gae_lambda", low=0, high=1)


class A2C(PolicyGradientAgent):
    """The A2C agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    Training is reproducible bit for bit on one machine with a fixed number of threads. The initial weights are the same
    for every number of threads, but rounding may differ between numbers of threads: PyTorch splits sums of more than
    32,768 elements over threads (here the gradient norm of a large network), and a BLAS may split large products.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.

    Raises:
        UserError: unsupported observation or action space; environments or a rollout that do not fit into memory.
    """

    algorithm = "a2c"

    def __init__(self, config: A2CConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.envs = envs if envs is not None else envs_of(config, config.n_envs, config.seed)
        row = observation_bytes(self.envs.observation_space) + 4 * sum(config.hidden)
        check_memory("n_steps", config.n_steps * self.envs.n_envs * row)
        self.network = make_network(config, self.envs, self.device, config.popart)
        self.popart = popart_of(self.network)
        self.parameters = flatten_parameters(self.network)
        self.optimizer = make_optimizer(config, self.parameters)
        self.outputs = acting(self.network, self.device)
        self.rng = np.random.default_rng(config.seed)

    def iterate(self) -> dict[str, Any]:
        """Act for ``n_steps`` in every environment and take one gradient step; return scalar metrics."""
        metrics = self.compute_gradient()
        config = self.config
        if config.lr_decay:
            remaining = max(0.0, 1 - self.envs.steps / config.total_steps)
            self.optimizer.param_groups[0]["lr"] = config.lr * remaining
        self.optimizer.step()
        return metrics

    def compute_gradient(self) -> dict[str, Any]:
        """Act for ``n_steps`` and set ``parameters.grad`` to the clipped gradient; return scalar metrics."""
        config = self.config
        rollout = collect(self.envs, self.sample, config.n_steps, self.device)
        if self.popart is not None:
            self.update_popart(self.popart, rollout)
        loss, metrics = self.loss(rollout)
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, config.max_grad_norm)
        for term in self.extra_losses:
            term.step()
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        return metrics

    def targets(self, rollout: Rollout, values: Tensor) -> tuple[Tensor, Tensor]:
        """Compute advantages and returns, [T·B] each, from the values of the rollout's observations."""
        sequences = rollout.rewards, *rollout.split_values(values), rollout.terminated, rollout.truncated
        advantages, returns = gae(*sequences, self.config.gamma, self.config.gae_lambda, valid=rollout.valid)
        return advantages.flatten(), returns.flatten()

    @torch.no_grad()
    def update_popart(self, network: GroupedActorCritic, rollout: Rollout) -> None:
        """Update the statistics of PopArt with the returns of the valid steps."""
        _, returns = self.targets(rollout, network(rollout.observations)[1])
        valid = rollout.valid.flatten()
        network.update_popart(rollout.observations[: len(valid)][valid], returns[valid])

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Any]]:
        """Compute −A log π + vf_coef (G − V)² − ent_coef H, averaged over the valid steps, and scalar metrics."""
        config, distribution = self.config, self.network.distribution
        outputs, all_values = self.network(rollout.observations)
        advantages, returns = self.targets(rollout, all_values.detach())
        acted = len(rollout.actions)
        outputs, values, weights = outputs[:acted], all_values[:acted], rollout.weights
        if self.popart is not None:
            sigma = self.popart.sigma(rollout.observations[:acted])
            advantages, values, returns = advantages / sigma, values / sigma, returns / sigma
        log_probs = distribution.log_probs(outputs, rollout.actions)
        policy = policy_gradient_loss(log_probs, advantages, weights)
        value = value_loss(values, returns, weights)
        loss = policy + config.vf_coef * value
        with torch.set_grad_enabled(config.ent_coef != 0):  # without a bonus the entropy is only a metric
            entropy = torch.dot(distribution.entropy(outputs), weights)
        if config.ent_coef:
            loss = loss - config.ent_coef * entropy
        metrics = {"policy_loss": policy.detach(), "value_loss": value.detach(), "entropy": entropy.detach()}
        if self.extra_losses:
            batch = Acted(rollout.observations[:acted], rollout.actions, weights)
            loss, measured = total_loss(loss, self.extra_losses, self.network, batch)
            metrics |= measured
        return loss, metrics


def make_optimizer(config: A2CConfig, parameters: torch.nn.Parameter) -> torch.optim.Optimizer:
    """Build the optimizer of the vector of all parameters."""
    if config.optimizer == "adam":
        return torch.optim.Adam([parameters], config.lr, eps=1e-5)
    return torch.optim.RMSprop([parameters], config.lr, alpha=0.99, eps=1e-5, foreach=False)


def train(
    config: A2CConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train A2C in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("a2c", A2C, config, out, resume, stop_after)
