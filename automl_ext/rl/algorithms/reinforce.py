"""REINFORCE with a baseline (Williams 1992, https://doi.org/10.1007/BF00992696; Sutton and Barto, section 13.4).

repeat:
    play one episode in every environment
    G_t ← discounted return; b_t ← V(s_t), or the mean return
    one Adam step on  −(G − b) log π(a|s) + vf_coef (G − V)² − ent_coef H(π)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.ops.policy import policy_gradient_loss
from automl_ext.ops.returns import discounted_returns
from automl_ext.rl.envs.rollouts import Rollout, to_rollout
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.policy_agent import OnPolicyAgent, PolicyConfig
from automl_ext.rl.loop.seams import Acted
from automl_ext.rl.loop.train_config import GAMMAS
from automl_ext.rl.networks.parameters import FlatAdam, clipped_gradient
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Range


@dataclass
class ReinforceConfig(PolicyConfig):
    """Configuration of REINFORCE, which uses Adam. The defaults are for CartPole-v1."""

    total_steps: int = 300_000  # Environment steps to train for.
    n_envs: int = 8  # Number of environments; an update uses one episode of each.
    gamma: Annotated[float, GAMMAS] = 0.99  # Discount factor.
    baseline: Literal["value", "mean"] = "value"  # Baseline of returns: learned V(s), or the update's mean return.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-3  # Learning rate.
    vf_coef: Annotated[float, Range(0.1, 1.0)] = 0.5  # Weight of the value loss.
    ent_coef: Annotated[float, Range(1e-8, 0.1, log=True)] = 0.0  # Weight of the entropy bonus.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "gamma", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "vf_coef", "ent_coef", low=0)


class Reinforce(OnPolicyAgent):
    """The REINFORCE agent; see :class:`automl_ext.rl.loop.agent.Agent`.

    Before each update all environments are reset, and the first episode of each environment is used. Using the episodes
    that end first instead would favor short ones. All environments are stepped until the longest of these episodes has
    ended. Steps after an environment's first episode count in ``envs.steps``, but the agent and its extras do not learn
    from them or report them. The environments need a time limit.

    A truncated episode bootstraps from the learned value of its final state. With ``baseline="mean"`` there is no value
    function; the return is then the sum of the rewards received.

    Args and errors: see :class:`~automl_ext.rl.loop.policy_agent.OnPolicyAgent`.
    """

    algorithm = "reinforce"

    def __init__(self, config: ReinforceConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        super().__init__(config, envs, encoder)
        self.optimizer = FlatAdam(self.parameters, config.lr)
        self.attach_extras()

    def iterate(self) -> dict[str, Any]:
        """Play one episode in every environment and take one gradient step; return scalar metrics."""
        self.set_initial_policy()
        rollout = self.play_episodes()
        loss, metrics = self.loss(rollout)
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.seams.step()
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        self.optimizer.step()
        return metrics | self.seams.updated(rollout)

    @torch.no_grad()
    def play_episodes(self) -> Rollout:
        """Reset all environments and play one episode in each. Steps after that episode are marked as not valid."""
        self.envs.reset()
        reported = len(self.envs.episodes)
        steps, actions = [], []
        running = np.ones(self.envs.n_envs, bool)
        while running.any():
            sampled, env_actions = self.sample(self.envs.observations)
            step = self.envs.step(env_actions, running)
            steps.append(step)
            actions.append(sampled)
            # Drop the reports of episodes after the first: they are not learned from, and the last one is cut short.
            self.envs.episodes[reported:] = [e for e in self.envs.episodes[reported:] if running[e.env]]
            reported = len(self.envs.episodes)
            running &= ~(step.terminated | step.truncated)
        return to_rollout(steps, actions, self.device)

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Any]]:
        """Compute the loss of whole episodes, and scalar metrics (Sutton and Barto, section 13.4):

        mean of −(G − b) log π(a|s) + vf_coef (G − V(s))² − ent_coef H(π), over the valid steps

        :func:`automl_ext.policy_gradient_loss` computes the loss and its gradient in one pass;
        ``automl_ext.ops.policy.loss_reference`` is the same in a few lines of PyTorch.
        """
        config, network, seen, weights = self.config, self.network, rollout.acted, rollout.weights
        learned = config.baseline == "value"
        outputs, all_values = network(rollout.observations)
        outputs, values = outputs[: len(seen)], all_values[: len(seen)]
        next_values = rollout.split_values(all_values.detach())[1]
        if not learned:
            next_values = torch.zeros_like(next_values)
        flags = rollout.terminated, rollout.truncated
        returns = discounted_returns(rollout.rewards, next_values, *flags, config.gamma, valid=rollout.valid).flatten()
        baseline = values.detach() if learned else torch.dot(returns, weights)
        log_probs, entropy = network.distribution.evaluate(outputs, rollout.actions)
        tensors = log_probs, entropy, values, returns - baseline, returns
        loss, policy_loss, value_loss, mean_entropy = policy_gradient_loss(
            *tensors, weights=weights, vf_coef=config.vf_coef if learned else 0.0, ent_coef=config.ent_coef
        )
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": mean_entropy}
        if not learned:
            del metrics["value_loss"]
        return self.seams.add_terms(loss, metrics, network, Acted(seen, rollout.actions, weights))
