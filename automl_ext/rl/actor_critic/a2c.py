"""A2C: advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, https://arxiv.org/abs/1602.01783).

repeat:
    act for ``n_steps`` in every environment
    G_t, A_t ← n-step returns and advantages, or λ-returns and advantages of GAE
    one step of the optimizer on  −A log π(a|s) + vf_coef (G − V)² − ent_coef H(π)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from automl_ext import gae
from automl_ext.rl.actor_critic.losses import policy_gradient_loss, value_loss
from automl_ext.rl.actor_critic.policy_gradient import (
    PolicyGradientAgent,
    PolicyGradientConfig,
)
from automl_ext.rl.actor_critic.reward_scale import RewardScale
from automl_ext.rl.envs.rollouts import Rollout, collect
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.exploration.self_imitation import SelfImitation
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.checks import warn_without_effect
from automl_ext.rl.loop.extensions import Acted, total_loss
from automl_ext.rl.loop.ranges import LAMBDAS
from automl_ext.rl.networks.grouped import GroupedActorCritic, popart_of
from automl_ext.rl.networks.parameters import clipped_gradient
from automl_ext.training import ranks
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Categories, Range
from automl_ext.training.seeding import derived_seed


@dataclass
class A2CConfig(PolicyGradientConfig):
    """Configuration of A2C.

    The defaults are for CartPole-v1. They are those of Stable-Baselines3 except for the learning rate: it decays
    linearly from 3e-3 to 0 instead of being 7e-4 throughout, so that late updates do not destroy a good policy.
    """

    n_steps: Annotated[int, Range(5, 256, log=True)] = 5  # Steps per environment and update.
    gae_lambda: Annotated[float, LAMBDAS] = 1.0
    """λ of generalized advantage estimation. 0: trust the next value; 1: n-step returns."""
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"  # Optimization algorithm.
    lr_decay: Annotated[bool, Categories(False, True)] = True
    """Decrease the learning rate linearly to 0 at total_steps."""
    scale_rewards: bool = False  # Divide rewards by the running standard deviation of the discounted returns.
    normalize_advantages: Annotated[bool, Categories(False, True)] = False
    """Normalize the advantages of every update to mean 0 and standard deviation 1."""
    self_imitation: bool = False  # Also imitate the own past actions that turned out better than expected.
    imitation_updates: int = 4  # Gradient steps of self-imitation after each update.
    imitation_batch_size: int = 512  # Transitions per gradient step of self-imitation.
    popart: bool = False  # Normalize the values of each task, and its advantages, by PopArt.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_steps", "imitation_updates", "imitation_batch_size", low=1)
        check_range(self, "gae_lambda", low=0, high=1)


class A2C(PolicyGradientAgent):
    """The A2C agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    Training is reproducible bit for bit on one machine with a fixed number of threads. The initial weights are the same
    for every number of threads, but rounding may differ between numbers of threads: PyTorch splits sums of more than
    32,768 elements over threads (here the gradient norm of a large network), and a BLAS may split large products.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`; it is trained
            with the policy. Runs and saved agents do not contain its architecture.

    Raises:
        UserError: unsupported observation or action space; environments or a rollout that do not fit into memory.
    """

    algorithm = "a2c"

    def __init__(self, config: A2CConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        self.set_up(config, envs, encoder, steps=config.n_steps, popart=config.popart)
        self.popart = popart_of(self.network)
        self.optimizer = make_optimizer(config, self.parameters)
        self.reward_scale = RewardScale(self.envs.n_envs, config.gamma, self.device) if config.scale_rewards else None
        warn_without_effect(config, "self_imitation", "imitation_updates", "imitation_batch_size")
        self.imitation = self._self_imitation() if config.self_imitation else None

    def iterate(self) -> dict[str, Any]:
        """Act for ``n_steps`` in every environment and take one gradient step; return scalar metrics."""
        metrics = self.compute_gradient()
        config = self.config
        if config.lr_decay:
            remaining = max(0.0, 1 - self.envs.steps / config.total_steps)
            self.optimizer.param_groups[0]["lr"] = config.lr * remaining
        self.optimizer.step()
        if self.imitation is not None:
            metrics |= self.imitation.update()
        return metrics

    def compute_gradient(self) -> dict[str, Any]:
        """Act for ``n_steps`` and set ``parameters.grad`` to the clipped gradient; return scalar metrics."""
        config = self.config
        rollout = collect(self.envs, self.sample, config.n_steps, self.device)
        if self.reward_scale is not None:
            rollout = rollout._replace(rewards=self.reward_scale(rollout))
        if self.popart is not None:
            self.update_popart(self.popart, rollout)
        loss, metrics = self.loss(rollout)
        metrics = ranks.totals(metrics)
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, config.max_grad_norm)
        for term in self.extra_losses:
            term.step()
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        metrics |= self.bonus_metrics()
        if self.imitation is not None:
            self.imitation.add(rollout)
        return metrics

    def _self_imitation(self) -> SelfImitation:
        config, trained = self.config, (self.network, self.parameters, self.optimizer)
        return SelfImitation(
            *trained,
            (self.envs.observation_space, self.envs.action_space),
            self.envs.n_envs,
            gamma=config.gamma,
            max_grad_norm=config.max_grad_norm,
            updates=config.imitation_updates,
            batch_size=config.imitation_batch_size,
            seed=derived_seed(config.seed, 7),
        )

    def restarted(self) -> None:
        for part in (self.imitation, self.reward_scale):
            if part is not None:
                part.cut()

    def state_dict(self) -> dict[str, Any]:
        parts = {"reward_scale": self.reward_scale, "imitation": self.imitation}
        return super().state_dict() | {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state["reward_scale"])
        if self.imitation is not None:
            self.imitation.load_state_dict(state["imitation"])
        super().load_state_dict(state)

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
        """Compute −A log π + vf_coef (G − V)² − ent_coef H, averaged over the valid steps, and scalar metrics.

        With several ranks, both are this rank's part of the sum.
        """
        config, distribution = self.config, self.network.distribution
        outputs, values = self.network(rollout.own_observations())
        advantages, returns = self.targets(rollout, rollout.values_of_all(values.detach()))
        acted = len(rollout.actions)
        own, n = ranks.part(acted), ranks.size(acted)
        outputs, values, weights = outputs[:n], values[:n], rollout.weights[own]
        if self.popart is not None:
            sigma = self.popart.sigma(rollout.observations[:acted])
            advantages, values, returns = advantages / sigma, values / sigma[own], returns / sigma
        if config.normalize_advantages:
            advantages = standardized(advantages, rollout.weights)
        advantages, returns, actions = advantages[own], returns[own], rollout.actions[own]
        log_probs = distribution.log_probs(outputs, actions)
        policy = policy_gradient_loss(log_probs, advantages, weights)
        value = value_loss(values, returns, weights)
        loss = policy + config.vf_coef * value
        with torch.set_grad_enabled(config.ent_coef != 0):  # without a bonus the entropy is only a metric
            entropy = torch.dot(distribution.entropy(outputs), weights)
        if config.ent_coef:
            loss = loss - config.ent_coef * entropy
        metrics = {"policy_loss": policy.detach(), "value_loss": value.detach(), "entropy": entropy.detach()}
        if self.extra_losses:
            batch = Acted(rollout.observations[:acted][own], actions, weights)
            loss, measured = total_loss(loss, self.extra_losses, self.network, batch)
            metrics |= measured
        return loss, metrics


def standardized(x: Tensor, weights: Tensor, eps: float = 1e-8) -> Tensor:
    """Return x [N] with mean 0 and standard deviation 1, both weighted by ``weights``, which sum to 1."""
    centered = x - torch.dot(x, weights)
    return centered / (torch.dot(centered.square(), weights).sqrt() + eps)


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
