"""PPO: proximal policy optimization with a clipped objective (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

repeat:
    act for ``n_steps`` in every environment
    A_t, G_t ← advantages and λ-returns of GAE; π_old ← π
    ``n_epochs`` times, for each minibatch of a new permutation of the steps:
        A ← (A − mean A) / std A;  r ← π(a|s) / π_old(a|s)
        one Adam step on  −min(r A, clip(r, 1 − ε, 1 + ε) A) + vf_coef (G − V)² − ent_coef H(π)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext import gae
from automl_ext.rl.actor_critic.losses import (
    clipped_surrogate,
    clipped_surrogate_gradient,
    clipped_value_loss,
    value_loss,
)
from automl_ext.rl.actor_critic.policy_gradient import (
    PolicyGradientAgent,
    PolicyGradientConfig,
)
from automl_ext.rl.envs.rollouts import Rollout, collect
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.extensions import Acted, total_loss
from automl_ext.rl.loop.ranges import GAMMAS, LAMBDAS
from automl_ext.rl.networks import numpy_adam
from automl_ext.rl.networks.actor_critic import is_twin
from automl_ext.rl.networks.actor_critic_gradient import ActorCriticGradient, differentiable
from automl_ext.rl.networks.grouped import popart_of
from automl_ext.rl.networks.parameters import clipped_gradient
from automl_ext.training import ranks
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import flushed_denormals
from automl_ext.training.search_space import Categories, Range

EPS = 1e-8  # added to the standard deviation of the advantages


@dataclass
class PPOConfig(PolicyGradientConfig):
    """Configuration of PPO. The defaults are for CartPole-v1, as in Stable-Baselines3's zoo."""

    n_steps: Annotated[int, Range(16, 2048, log=True)] = 32  # Steps per environment and rollout.
    batch_size: Annotated[int, Range(16, 1024, log=True)] = 256  # Largest number of steps in a minibatch.
    n_epochs: Annotated[int, Range(1, 20)] = 20  # Passes over each rollout.
    gamma: Annotated[float, GAMMAS] = 0.98  # Discount factor.
    gae_lambda: Annotated[float, LAMBDAS] = 0.8
    """λ of generalized advantage estimation. 0: trust the next value; 1: n-step returns."""
    clip_range: Annotated[float, Range(0.1, 0.4)] = 0.2
    """ε: the ratio of the new to the old probability counts within 1 ± ε."""
    value_clip: float | None = None  # Largest change of a value that lowers the value loss. None: no clipping.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 1e-3  # Learning rate.
    lr_decay: Annotated[bool, Categories(False, True)] = True
    """Decrease the learning rate linearly to 0 at total_steps."""
    clip_decay: Annotated[bool, Categories(False, True)] = True  # Decrease the clip range linearly to 0 at total_steps.
    popart: bool = False  # Normalize the values of each task, and its advantages, by PopArt.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_steps", "n_epochs", low=1)
        check_range(self, "batch_size", low=2)  # the normalized advantage of a single step is 0
        check_range(self, "gae_lambda", low=0, high=1)
        check_range(self, "clip_range", "value_clip", above=0)
        if self.n_steps * self.n_envs < 2:
            raise ValueError("n_steps: expected n_steps × n_envs to be at least 2, got 1")


class Transitions(NamedTuple):
    """N valid steps of a rollout: tensors, or arrays.

    Attributes:
        observations, actions: [N, ...].
        log_probs: log π_old(a|s), [N], of the policy before the update.
        values, advantages, returns: V(s) before the update, A(s, a) and the λ-returns G, [N].
    """

    observations: Any
    actions: Any
    log_probs: Any
    values: Any
    advantages: Any
    returns: Any


class PPO(PolicyGradientAgent):
    """Proximal policy optimization with the clipped objective (Schulman et al. 2017).

    Its methods are those of :class:`automl_ext.rl.loop.learning.LearningAgent`. On the CPU, separate MLPs of policy and
    value are updated in NumPy, with the gradient of :meth:`loss` but without autograd. Other networks, ``value_clip``
    and :attr:`extra_losses` use autograd.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`; it is trained
            with the policy. Runs and saved agents do not contain its architecture.

    Raises:
        UserError: unsupported observation or action space; environments or a rollout that do not fit into memory.
    """

    algorithm = "ppo"

    def __init__(self, config: PPOConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        self.set_up(config, envs, encoder, steps=config.n_steps, popart=config.popart)
        if config.batch_size < 2 * ranks.count():  # so that every rank has a part of every minibatch
            raise UserError(f"batch_size: expected at least 2 for each process, got {config.batch_size}")
        self.popart = popart_of(self.network)
        self.optimizer = torch.optim.Adam([self.parameters], config.lr, eps=1e-5, fused=True)
        small = is_twin(self.network) and self.device.type == "cpu" and config.value_clip is None
        self._gradient = ActorCriticGradient(self.network) if small else None

    def iterate(self) -> dict[str, Any]:
        """Act for ``n_steps`` in every environment and update on the rollout; return scalar metrics."""
        config = self.config
        remaining = max(0.0, 1 - self.envs.steps / config.total_steps)
        self.optimizer.param_groups[0]["lr"] = config.lr * (remaining if config.lr_decay else 1)
        clip = config.clip_range * (remaining if config.clip_decay else 1)
        rollout = collect(self.envs, self.sample, config.n_steps, self.device)
        steps = self.transitions(rollout)
        if not len(steps.actions):  # all environments were restarting
            return {}
        update, batches = self.update, steps
        if self._gradient is not None and not self.extra_losses:
            update, batches = self.update_in_numpy, self.as_arrays(steps)
        # The training loop ends the run if a loss is not finite.
        with flushed_denormals(), np.errstate(over="ignore", invalid="ignore"):
            measured = [update(batch, clip) for _ in range(config.n_epochs) for batch in self.minibatches(batches)]
        metrics = {name: sum(x[name] for x in measured) / len(measured) for name in measured[0]}
        summed = {name: metrics[name] for name in metrics if name != "grad_norm"} | self.change(steps, clip)
        metrics |= ranks.totals(summed) | self.bonus_metrics()
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        return metrics

    @torch.no_grad()
    def transitions(self, rollout: Rollout) -> Transitions:
        """Compute advantages, returns and log π_old, and leave out the steps that are not valid."""
        config = self.config
        outputs, own_values = self.network(rollout.own_observations())
        values, next_values = rollout.split_values(rollout.values_of_all(own_values))
        sequences = rollout.rewards, values, next_values, rollout.terminated, rollout.truncated
        advantages, returns = gae(*sequences, config.gamma, config.gae_lambda, valid=rollout.valid)
        acted, valid = len(rollout.actions), rollout.valid.flatten()
        if self.popart is not None:  # the values do not change
            seen = rollout.observations[:acted]
            self.popart.update_popart(seen[valid], returns.flatten()[valid])
            advantages = advantages / self.popart.sigma(seen).view_as(advantages)
        own, n = ranks.part(acted), ranks.size(acted)
        log_probs = ranks.gather(self.network.distribution.log_probs(outputs[:n], rollout.actions[own]), acted)
        flat = values.flatten(), advantages.flatten(), returns.flatten()
        arrays = rollout.observations[:acted], rollout.actions, log_probs, *flat
        return Transitions(*(x[valid] for x in arrays))

    @torch.no_grad()
    def as_arrays(self, steps: Transitions) -> Transitions:
        """Convert to arrays for :meth:`update_in_numpy`, with normalized observations."""
        norm, observations = self.network.body.norm, steps.observations.float()
        observations = observations if norm is None else norm(observations)
        return Transitions(*(x.numpy() for x in steps._replace(observations=observations)))

    def minibatches(self, steps: Transitions) -> Iterator[Transitions]:
        """Yield minibatches of a random permutation: as few as possible, whose sizes differ by at most 1."""
        n = len(steps.actions)
        parts = math.ceil(n / self.config.batch_size)
        order = self.rng.permutation(n)
        shuffled = [x[order] for x in steps]
        for i in range(parts):
            yield Transitions(*(x[i * n // parts : (i + 1) * n // parts] for x in shuffled))

    def update(self, batch: Transitions, clip: float) -> dict[str, Any]:
        """Take one gradient step on a minibatch; return scalar metrics: with several ranks, this rank's part."""
        loss, metrics = self.loss(batch, clip)
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        for term in self.extra_losses:
            term.step()
        return metrics

    def loss(self, batch: Transitions, clip: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a minibatch, with its normalized advantages, and scalar metrics.

        With several ranks, both are this rank's part of the sum.
        """
        config, distribution, total = self.config, self.network.distribution, len(batch.actions)
        batch = own_part(batch._replace(advantages=normalized(batch.advantages)))
        outputs, values = self.network(batch.observations)
        if self.popart is not None:
            sigma = self.popart.sigma(batch.observations)
            values, batch = values / sigma, batch._replace(values=batch.values / sigma, returns=batch.returns / sigma)
        weights = torch.full_like(values, 1 / total)
        log_probs = distribution.log_probs(outputs, batch.actions)
        policy = clipped_surrogate(log_probs, batch.log_probs, batch.advantages, weights, clip)
        if config.value_clip is None:
            value = value_loss(values, batch.returns, weights)
        else:
            value = clipped_value_loss(values, batch.values, batch.returns, weights, config.value_clip)
        entropy = torch.dot(distribution.entropy(outputs), weights)
        loss = policy + config.vf_coef * value - config.ent_coef * entropy
        metrics = {"policy_loss": policy.detach(), "value_loss": value.detach(), "entropy": entropy.detach()}
        if self.extra_losses:
            acted = Acted(batch.observations, batch.actions, weights)
            loss, measured = total_loss(loss, self.extra_losses, self.network, acted)
            metrics |= measured
        return loss, metrics

    def update_in_numpy(self, batch: Transitions, clip: float) -> dict[str, Any]:
        """Do :meth:`update` for a minibatch of arrays with normalized observations, without autograd."""
        config, network, gradient, n = self.config, self._gradient, self.parameters.grad, len(batch.actions)
        assert network is not None
        assert gradient is not None
        batch = own_part(batch._replace(advantages=normalized(batch.advantages)))
        share = len(batch.actions) / n  # 1 without several ranks
        outputs, values = network.forward(batch.observations)
        log_probs, entropy, backward = differentiable(self.network.distribution, outputs, batch.actions)
        errors = values - batch.returns
        policy, of_log_probs = clipped_surrogate_gradient(log_probs, batch.log_probs, batch.advantages, clip, n)
        network.backward(backward(of_log_probs, -config.ent_coef / n), errors * (2 * config.vf_coef / n))
        ranks.add_up(gradient)
        norm = numpy_adam.clip_norm(gradient.numpy(), config.max_grad_norm)
        numpy_adam.step(self.optimizer, self.parameters)
        value = float(errors.dot(errors)) / n
        mean_entropy = float(entropy.mean()) * share
        return {"policy_loss": policy * share, "value_loss": value, "entropy": mean_entropy, "grad_norm": norm}

    @torch.no_grad()
    def change(self, steps: Transitions, clip: float) -> dict[str, Tensor]:
        """Measure how far the update moved the policy on the rollout; with several ranks, this rank's part.

        Returns:
            kl: estimate of KL(π_old ‖ π) by r − 1 − log r, which is at least 0 (http://joschu.net/blog/kl-approx.html).
            clip_fraction: fraction of the steps whose ratio r left 1 ± ε.
        """
        own = own_part(steps)
        share = len(own.actions) / len(steps.actions)
        outputs, _ = self.network(own.observations)
        log_ratio = self.network.distribution.log_probs(outputs, own.actions) - own.log_probs
        change = log_ratio.expm1()
        clipped = (change.abs() > clip).float().mean()
        return {"kl": (change - log_ratio).mean() * share, "clip_fraction": clipped * share}


def own_part(batch: Transitions) -> Transitions:
    """Return this rank's part of a minibatch."""
    if ranks.count() == 1:
        return batch
    own = ranks.part(len(batch.actions))
    return Transitions(*(x[own] for x in batch))


def normalized(advantages: Any) -> Any:
    """Shift and scale the advantages [N] of a minibatch to mean 0 and standard deviation 1."""
    centered = advantages - advantages.mean()
    return centered / ((centered * centered).mean() ** 0.5 + EPS)


def train(
    config: PPOConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train PPO in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("ppo", PPO, config, out, resume, stop_after)
