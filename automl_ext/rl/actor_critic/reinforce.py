"""REINFORCE with a baseline (Williams 1992, https://doi.org/10.1007/BF00992696; Sutton and Barto, section 13.4).

repeat:
    play one episode in every environment
    G_t ← discounted return; b_t ← V(s_t), or the mean return
    one Adam step on  −(G − b) log π(a|s) + vf_coef (G − V)² − ent_coef H(π)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext import discounted_returns
from automl_ext.rl.actor_critic.losses import policy_gradient_loss, value_loss
from automl_ext.rl.actor_critic.policy_gradient import (
    PolicyGradientAgent,
    PolicyGradientConfig,
)
from automl_ext.rl.envs.rollouts import Rollout, to_rollout
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.extensions import Acted, total_loss
from automl_ext.rl.networks.parameters import clipped_gradient


@dataclass
class ReinforceConfig(PolicyGradientConfig):
    """Configuration of REINFORCE, which uses Adam. The defaults are for CartPole-v1."""

    total_steps: int = 300_000  # Environment steps to train for.
    n_envs: int = 8  # Number of environments; an update uses one episode of each.
    baseline: Literal["value", "mean"] = "value"  # Baseline of returns: learned V(s), or the update's mean return.


class Reinforce(PolicyGradientAgent):
    """The REINFORCE agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    Before each update all environments are reset, and the first episode of each environment is used. Using the episodes
    that end first instead would favor short ones. All environments are stepped until the longest of these episodes has
    ended. Steps after an environment's first episode count in ``envs.steps``, but the agent does not learn from them or
    report them. The environments need a time limit.

    A truncated episode bootstraps from the learned value of its final state. With ``baseline="mean"`` there is no value
    function; the return is then the sum of the rewards received.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`; it is trained
            with the policy. Runs and saved agents do not contain its architecture.

    Raises:
        UserError: unsupported observation or action space.
    """

    algorithm = "reinforce"

    def __init__(self, config: ReinforceConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        self.set_up(config, envs, encoder)
        self.optimizer = torch.optim.Adam([self.parameters], config.lr)

    def iterate(self) -> dict[str, Any]:
        """Play one episode in every environment and take one gradient step; return scalar metrics."""
        rollout = self.play_episodes()
        loss, metrics = self.loss(rollout)
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        for term in self.extra_losses:
            term.step()
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        metrics |= self.bonus_metrics()
        self.optimizer.step()
        return metrics

    def play_episodes(self) -> Rollout:
        """Reset all environments and play one episode in each. Steps after that episode are marked as not valid."""
        self.envs.reset()
        reported = len(self.envs.episodes)
        steps, actions = [], []
        running = np.ones(self.envs.n_envs, bool)
        while running.any():
            sampled, env_actions = self.sample(self.envs.observations)
            step = self.envs.step(env_actions)
            steps.append(step._replace(valid=running.copy()))
            actions.append(sampled)
            # Drop the reports of episodes after the first: they are not learned from, and the last one is cut short.
            self.envs.episodes[reported:] = [e for e in self.envs.episodes[reported:] if running[e.env]]
            reported = len(self.envs.episodes)
            running &= ~(step.terminated | step.truncated)
        return to_rollout(steps, actions, self.device)

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Any]]:
        """Compute −(G − b) log π + vf_coef (G − V)² − ent_coef H, averaged over the valid steps, and scalar metrics."""
        config, distribution = self.config, self.network.distribution
        outputs, all_values = self.network(rollout.observations)
        acted, weights = len(rollout.actions), rollout.weights
        values, next_values = rollout.split_values(all_values.detach())
        use_values = config.baseline == "value"
        if not use_values:
            next_values = torch.zeros_like(next_values)
        flags = rollout.terminated, rollout.truncated
        returns = discounted_returns(rollout.rewards, next_values, *flags, config.gamma, valid=rollout.valid).flatten()
        baseline = values.flatten() if use_values else torch.dot(returns, weights)
        log_probs = distribution.log_probs(outputs[:acted], rollout.actions)
        entropy = torch.dot(distribution.entropy(outputs[:acted]), weights)
        loss = policy_gradient_loss(log_probs, returns - baseline, weights) - config.ent_coef * entropy
        metrics = {"policy_loss": loss.detach(), "entropy": entropy.detach()}
        if use_values:
            value = value_loss(all_values[:acted], returns, weights)
            loss = loss + config.vf_coef * value
            metrics["value_loss"] = value.detach()
        if self.extra_losses:
            batch = Acted(rollout.observations[:acted], rollout.actions, weights)
            loss, measured = total_loss(loss, self.extra_losses, self.network, batch)
            metrics |= measured
        return loss, metrics


def train(
    config: ReinforceConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train REINFORCE in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("reinforce", Reinforce, config, out, resume, stop_after)
