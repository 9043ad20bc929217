"""Random network distillation (Burda et al. 2018, https://arxiv.org/abs/1810.12894).

The error of a network that learns to predict a fixed random network f:  b(s′) = ‖f̂(s′) − f(s′)‖² / dimensions.
It is large for observations that are unlike those that the network was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
from torch import Tensor, nn

from automl_ext.rl.exploration.learned import normalized_space
from automl_ext.rl.networks.body import Body, orthogonal_


class RND(nn.Module):
    """The model of :class:`~automl_ext.rl.exploration.learned.LearnedBonus` for random network distillation.

    Args:
        space: space of the observations.
        hidden: units of the hidden layers. As in the paper, the predictor has one more than the random network.
        features: outputs of both networks.

    Raises:
        UserError: observations that :class:`~automl_ext.rl.networks.body.Body` does not support.
    """

    def __init__(self, space: gymnasium.Space, hidden: Sequence[int] = (64,), features: int = 64) -> None:
        super().__init__()
        space = normalized_space(space)
        self.target = network(space, hidden, features).requires_grad_(False)
        self.predictor = network(space, [*hidden, hidden[-1]], features)

    def forward(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the errors for the next observations, [N], which are also the losses."""
        errors = (self.predictor(next_observations) - self.target(next_observations)).square().mean(1)
        return errors, errors


def network(space: gymnasium.Space, hidden: Sequence[int], features: int) -> nn.Sequential:
    """Build a network from normalized observations to features, orthogonally initialized as in the paper's code."""
    body = Body(space, hidden, nn.ReLU)
    layers = nn.Sequential(body, nn.Linear(body.features, features))
    for layer in layers.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            orthogonal_(layer.weight, 2**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return layers
