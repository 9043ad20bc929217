"""DrAC: regularization of an actor-critic by augmentation (Raileanu et al. 2020, https://arxiv.org/abs/2006.12862).

minimize  loss + weight · ( KL[π(·|s) ‖ π(·|f(s))] + (V(s) − V(f(s)))² )        eq. 3 to 5

f is a random shift. π(·|s) and V(s) are targets without gradient, as in the authors' code. Augmenting the observations
of the policy gradient itself would be wrong: the actions were sampled from π(·|s), not from π(·|f(s)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.rl.augmentation.shift import RandomShift
from automl_ext.rl.loop.extensions import Acted
from automl_ext.rl.networks.actor_critic import ActorCritic


class DrAC:
    """The regularization as an :class:`~automl_ext.rl.loop.extensions.ExtraLoss` of A2C and PPO.

    Args:
        weight: α_r of the paper, which uses 0.1.
        shift: the augmentation f.
    """

    def __init__(self, weight: float, shift: RandomShift) -> None:
        self.weight, self.shift = weight, shift

    def loss(self, network: nn.Module, batch: Acted) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted sum of both terms, and the two terms as metrics."""
        assert isinstance(network, ActorCritic)
        with torch.no_grad():
            outputs, values = network(batch.observations)
        shifted_outputs, shifted_values = network(self.shift(batch.observations))
        policy = torch.dot(network.distribution.divergence(outputs, shifted_outputs), batch.weights)
        value = torch.dot((values - shifted_values).square(), batch.weights)
        return self.weight * (policy + value), {"drac_policy": policy.detach(), "drac_value": value.detach()}

    def step(self) -> None:
        """Do nothing: the term has no parameters."""

    def state_dict(self) -> dict[str, Any]:
        return self.shift.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shift.load_state_dict(state)
