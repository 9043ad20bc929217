"""The intrinsic curiosity module (Pathak et al. 2017, https://arxiv.org/abs/1705.05363).

An inverse model learns features φ that suffice to tell which action led from s to s′, and so ignore what the agent
cannot influence. A forward model predicts φ(s′). Its error is the bonus:

    b(s, a, s′) = ½ ‖φ̂(φ(s), a) − φ(s′)‖² / dimensions
    loss = (1 − β) · inverse loss(a | φ(s), φ(s′)) + β · b(s, a, s′)        equation 7, without the policy's term
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.rl.exploration.learned import normalized_space
from automl_ext.rl.networks.action_spaces import BoxScaling, unsupported
from automl_ext.rl.networks.body import Body

BETA = 0.2


class ICM(nn.Module):
    """The model of :class:`~automl_ext.rl.exploration.learned.LearnedBonus` for curiosity.

    Args:
        space: space of the observations.
        actions: space of the actions, Discrete (inverse loss: cross entropy) or Box (squared error of the actions as
            :class:`~automl_ext.rl.networks.action_spaces.BoxScaling` normalizes them).
        hidden: units of the encoder's hidden layers; the last one gives the features. Both models have one hidden layer
            of that size.

    Raises:
        UserError: another action space, or observations that :class:`~automl_ext.rl.networks.body.Body` does not
            support.
    """

    middle: Tensor
    radius: Tensor

    def __init__(self, space: gymnasium.Space, actions: gymnasium.Space, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.discrete = isinstance(actions, gymnasium.spaces.Discrete)
        if isinstance(actions, gymnasium.spaces.Discrete):
            self.actions = int(actions.n)
        elif isinstance(actions, gymnasium.spaces.Box):
            self.actions, box = math.prod(actions.shape), BoxScaling(actions)
            for name, x in (("middle", box.middle), ("radius", box.half)):
                self.register_buffer(name, torch.tensor(x, dtype=torch.float32).flatten(), persistent=False)
        else:
            raise unsupported(actions)
        self.encoder = Body(normalized_space(space), hidden, nn.ELU)
        features = self.encoder.features
        self.inverse = nn.Sequential(nn.Linear(2 * features, features), nn.ReLU(), nn.Linear(features, self.actions))
        self.ahead = nn.Sequential(
            nn.Linear(features + self.actions, features), nn.ReLU(), nn.Linear(features, features)
        )

    def forward(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the errors of the forward model and the losses, [N]."""
        before, after = self.encoder(observations), self.encoder(next_observations)
        if self.discrete:
            taken = F.one_hot(actions, self.actions).float()
        else:
            taken = (actions.reshape(len(actions), -1).float() - self.middle) / self.radius
        guess = self.inverse(torch.cat([before, after], 1))
        if self.discrete:
            inverse_loss = F.cross_entropy(guess, actions, reduction="none")
        else:
            inverse_loss = (guess - taken).square().mean(1)
        predicted = self.ahead(torch.cat([before, taken], 1))
        errors = 0.5 * (predicted - after).square().mean(1)
        return errors, (1 - BETA) * inverse_loss + BETA * errors
