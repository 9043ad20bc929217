"""IQL: implicit Q-learning (Kostrikov et al. 2021, https://arxiv.org/abs/2110.06169), for discrete actions.

repeat, on batches of recorded transitions:
    V: minimize  E[L^τ(min_i Q̂_i(s, a) − V(s))],  L^τ(u) = |τ − 1(u < 0)| u²               eq. 5
    Q_i: minimize  E[(r + γ V(s') − Q_i(s, a))²]                                             eq. 6
    π: maximize  E[exp(β (min_i Q̂_i(s, a) − V(s))) log π(a|s)]                               eq. 7
    Q̂_i ← Q̂_i + polyak (Q_i − Q̂_i)

Only actions of the data are evaluated. V is an expectile over them: the closer τ is to 1, the closer V is to the value
of the best action in the data.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.rl.loop.offline import OfflineAgent, OfflineConfig
from automl_ext.rl.loop.policy_agent import PolicyAgent
from automl_ext.rl.networks.action_spaces import discrete
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.parameters import FlatAdam, check_hidden, clipped_gradient, flatten_parameters
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.checks import check_range
from automl_ext.training.seeding import seeded

LARGEST_WEIGHT = 100.0  # of a log-probability, as in the authors' code


@dataclass
class IQLConfig(OfflineConfig):
    """Configuration of IQL."""

    expectile: float = 0.8  # τ: 0.5 evaluates the policy of the data; closer to 1, the best actions in the data.
    beta: float = 3.0  # β, inverse temperature of the policy's weights. 0: behavior cloning.
    polyak: float = 0.005  # Rate at which the target networks follow the Q-networks.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "expectile", above=0, below=1)
        check_range(self, "beta", low=0)
        check_range(self, "polyak", above=0, high=1)
        check_hidden(self, units=2, layers=1)


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Compute E[\\|τ − 1(u < 0)\\| u²] of u = ``difference``, [N]; 0-dim."""
    weights = torch.where(difference < 0, 1 - expectile, expectile)
    return (weights * difference.square()).mean()


def weighted_cloning_loss(log_probs: Tensor, advantages: Tensor, beta: float) -> Tensor:
    """Compute −E[exp(β A) log π(a|s)], [N] each; the advantages are constants, weights are at most 100."""
    weights = (beta * advantages.detach()).exp().clamp(max=LARGEST_WEIGHT)
    return -(weights * log_probs).mean()


class IQL(PolicyAgent, OfflineAgent):
    """The IQL agent; see :class:`automl_ext.rl.loop.offline.OfflineAgent`.

    Attributes:
        network: π and V.
        q: the two Q-networks.
        q_target: their target networks.

    Raises:
        UserError: an action space that is not Discrete, or an unsupported observation space.
    """

    algorithm = "iql"

    def __init__(self, config: IQLConfig, envs: Any = None) -> None:
        super().__init__(config, envs)
        actions, _ = discrete(self.envs.action_space)
        space = self.envs.observation_space
        with seeded(config.seed):
            network = ActorCritic(space, self.envs.action_space, config.hidden, config.normalize_observations)
            q = nn.ModuleList(
                QNetwork(space, actions, config.hidden, normalize=config.normalize_observations) for _ in range(2)
            )
        self.network, self.q = network.to(self.device), q.to(self.device)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.networks = {"network": self.network, "q": self.q, "q_target": self.q_target}
        self.parameters = flatten_parameters(nn.ModuleList([self.network, self.q]))
        self.optimizer = FlatAdam(self.parameters, config.lr)
        self.attach_extras()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        loss, metrics = self.loss(batch)
        clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            for target, online in zip(self.q_target.parameters(), self.q.parameters(), strict=True):
                target.lerp_(online, self.config.polyak)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the sum of the losses of V, Q and π, and metrics.

        For vectors, the three losses have no parameters in common; for images, V and π share the convolutions.
        """
        config, actions = self.config, batch.actions.unsqueeze(1)
        outputs, values = self.network(batch.observations)
        with torch.no_grad():
            next_values = self.network(batch.next_observations)[1]
            target_q = torch.stack([q(batch.observations).gather(1, actions).squeeze(1) for q in self.q_target]).amin(0)
            returns = batch.returns + batch.discounts * next_values
        chosen = torch.stack([q(batch.observations).gather(1, actions).squeeze(1) for q in self.q])
        value = expectile_loss(target_q - values, config.expectile)
        error = (returns - chosen).square().mean(1).sum()
        log_probs = self.network.distribution.log_probs(outputs, batch.actions)
        policy = weighted_cloning_loss(log_probs, target_q - values, config.beta)
        metrics = {"policy_loss": policy, "value_loss": value, "q_loss": error}
        return value + error + policy, {name: x.detach() for name, x in metrics.items()}
