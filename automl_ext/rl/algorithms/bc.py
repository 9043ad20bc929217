"""Behavior cloning (Pomerleau 1991): supervised learning of a policy from recorded episodes.

repeat:
    sample (s, a, G) from the episodes; G: discounted return until the end of the episode
    one step of Adam on  −log π(a|s) + vf_coef (G − V(s))²

V is not needed to act, and learning it does not change π. A policy-gradient agent that starts from the clone
(``--initial-policy.path``) also starts with this V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from automl_ext.rl.loop.offline import OfflineAgent, OfflineConfig
from automl_ext.rl.loop.policy_agent import PolicyAgent
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.parameters import FlatAdam, clipped_gradient, flatten_parameters
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.checks import check_range
from automl_ext.training.seeding import seeded


@dataclass
class BCConfig(OfflineConfig):
    """Configuration of behavior cloning.

    The network is that of A2C with the same ``hidden`` and ``normalize_observations``.
    """

    total_steps: int = 2_000  # Number of gradient steps.
    eval_every: int = 500  # Gradient steps between evaluations in the environment.
    vf_coef: float = 0.5  # Weight of the value loss.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "vf_coef", low=0)


def bc_loss(log_probs: Tensor, values: Tensor, returns: Tensor, vf_coef: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the mean of −log π(a|s) + vf_coef (G − V(s))² over [N] recorded steps, and its parts as metrics."""
    policy_loss, value_loss = -log_probs.mean(), (returns - values).square().mean()
    return policy_loss + vf_coef * value_loss, {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()}


class BC(PolicyAgent, OfflineAgent):
    """The agent of behavior cloning; see :class:`automl_ext.rl.loop.offline.OfflineAgent`.

    Attributes:
        network: policy and value function.

    Raises:
        UserError: unsupported observation or action space.
    """

    algorithm = "bc"

    def __init__(self, config: BCConfig, envs: Any = None) -> None:
        super().__init__(config, envs)
        with seeded(config.seed):
            network = ActorCritic(
                self.envs.observation_space, self.envs.action_space, config.hidden, config.normalize_observations
            )
        self.network = network.to(self.device)
        self.networks = {"network": self.network}
        self.parameters = flatten_parameters(self.network)
        self.optimizer = FlatAdam(self.parameters, config.lr)
        self.attach_extras()

    def window(self, longest: int) -> int:
        return longest  # returns until the end of the episode; a truncated one bootstraps from V

    def update(self, batch: Batch) -> dict[str, Tensor]:
        network = self.network
        features = network.body(batch.observations)
        # With images, policy and value share the body. Only the policy trains it: clones must not depend on rewards.
        values = network.critic(features.detach()).squeeze(-1)
        with torch.no_grad():
            returns = batch.returns + batch.discounts * network.values(batch.next_observations)
        log_probs = network.distribution.log_probs(network.actor(features), batch.actions)
        loss, metrics = bc_loss(log_probs, values, returns, self.config.vf_coef)
        clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        return metrics
