"""REINFORCE with a baseline (Williams 1992, https://doi.org/10.1007/BF00992696; Sutton and Barto, section 13.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from automl_ext import discounted_returns
from automl_ext.rl.actor_critic.losses import policy_gradient_loss, value_loss
from automl_ext.rl.envs.rollouts import Rollout, to_rollout
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import Agent, TrainConfig, envs_of
from automl_ext.rl.loop.checks import check_hidden, check_max_grad_norm
from automl_ext.rl.networks.actor_critic import ActorCritic, acting
from automl_ext.rl.networks.parameters import clip_norm, flatten_parameters
from automl_ext.training.checks import check_range
from automl_ext.training.device import choose_device
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state


@dataclass
class ReinforceConfig(TrainConfig):
    """See docs/rl.md for what these reach."""

    total_steps: int = 300_000
    n_envs: int = 8
    """One episode of each makes an update."""
    gamma: float = 0.99
    baseline: Literal["value", "mean"] = "value"
    """What returns are compared with: a learned V(s), or their mean over the update's steps."""
    lr: float = 3e-3
    """Of Adam, for policy and value."""
    vf_coef: float = 0.5
    ent_coef: float = 0.0
    max_grad_norm: float = 0.5
    """The gradient is scaled down to this norm; inf: no clipping."""
    hidden: tuple[int, ...] = (64, 64)
    normalize: bool = False
    """Observations, by their running mean and standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "gamma", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "vf_coef", "ent_coef", low=0)
        check_max_grad_norm(self)
        check_hidden(self)


class Reinforce(Agent):
    """A whole episode in every environment, then one step up the gradient of log π weighed by return less baseline.

    All environments are reset before an update's episodes, and the first episode of each counts: taking those that
    end first would favor short ones. Environments go on until the longest of these episodes has ended. Their further
    steps count in ``envs.steps``, but are neither learned from nor reported. The environments need a time limit.

    A truncated episode goes on from its final state with the learned value; with ``baseline="mean"`` there is no value
    and its return is what it was paid.

    Args:
        config: all that decides the outcome.
        envs: to train in; made from the configuration where None.

    Raises:
        UserError: spaces that no network covers.
    """

    envs: Envs

    def __init__(self, config: ReinforceConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.envs = envs if envs is not None else envs_of(config, config.n_envs, config.seed)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.manual_seed(config.seed)
            network = ActorCritic(self.envs.observation_space, self.envs.action_space, config.hidden, config.normalize)
        self.network = network.to(self.device)
        self.parameters = flatten_parameters(self.network)
        self.optimizer = torch.optim.Adam([self.parameters], config.lr)
        self.outputs = acting(self.network, self.device)
        self.rng = np.random.default_rng(config.seed)

    def iterate(self) -> dict[str, Any]:
        rollout = self.play_episodes()
        loss, measured = self.loss(rollout)
        gradient = self.parameters.grad  # the network's gradients are views of it
        assert gradient is not None
        gradient.zero_()
        loss.backward()
        self.network.saw(rollout.observations)  # not before: the rollout's actions and its loss see the same network
        measured["grad_norm"] = clip_norm(gradient, self.config.max_grad_norm)
        self.optimizer.step()
        return measured

    def play_episodes(self) -> Rollout:
        """The first episode of every environment from now on; steps after it are not valid."""
        self.envs.reset()
        distribution, reported = self.network.distribution, len(self.envs.episodes)
        taken, drawn = [], []
        running = np.ones(self.envs.n_envs, bool)
        while running.any():
            actions = distribution.sample(self.outputs(self.envs.observations), self.rng)
            step = self.envs.step(distribution.to_env(actions))
            taken.append(step._replace(valid=running.copy()))
            drawn.append(actions)
            # Report the episodes of the update alone: later ones are cut short at random, and nothing learns from them.
            self.envs.episodes[reported:] = [e for e in self.envs.episodes[reported:] if running[e.env]]
            reported = len(self.envs.episodes)
            running &= ~(step.terminated | step.truncated)
        return to_rollout(taken, drawn, self.device)

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Any]]:
        """−(G − b) log π + vf_coef (G − V)² − ent_coef H, averaged over the steps of all episodes."""
        config = self.config
        outputs, all_values = self.network(rollout.observations)
        acted, weights = len(rollout.actions), rollout.weights
        values, next_values = rollout.split_values(all_values.detach())
        learned = config.baseline == "value"
        if not learned:
            next_values = torch.zeros_like(next_values)
        flags = rollout.terminated, rollout.truncated
        returns = discounted_returns(rollout.rewards, next_values, *flags, config.gamma, valid=rollout.valid).flatten()
        baseline = values.flatten() if learned else torch.dot(returns, weights)
        distribution = self.network.distribution
        log_probs = distribution.log_probs(outputs[:acted], rollout.actions)
        entropies = distribution.entropy(outputs[:acted])
        entropy = torch.dot(entropies, weights)
        loss = policy_gradient_loss(log_probs, returns - baseline, weights) - config.ent_coef * entropy
        measured = {"policy_loss": loss.detach(), "entropy": entropy.detach()}
        if learned:
            value = value_loss(all_values[:acted], returns, weights)
            loss = loss + config.vf_coef * value
            measured["value_loss"] = value.detach()
        return loss, measured

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


def train(
    config: ReinforceConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("reinforce", Reinforce, config, out, resume, stop_after)
