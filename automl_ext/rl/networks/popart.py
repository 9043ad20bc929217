"""PopArt (van Hasselt et al. 2016, https://arxiv.org/abs/1602.07714): adaptive normalization of value targets.

The head's output n is a normalized value: V(s) = σ n(s) + μ, with the running mean μ and standard deviation σ of the
targets G. When μ and σ change to μ′ and σ′, the last layer is rescaled so that V does not change (section 2.1):

    w′ = σ / σ′ · w        b′ = (σ b + μ − μ′) / σ′

The loss is the squared error of normalized values, ((G − V) / σ)², so that the scale of the rewards does not matter.
With one head per task, the advantages are divided by the task's σ, too (Hessel et al. 2019,
https://arxiv.org/abs/1809.04474).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATE = 0.01  # β: weight of a new batch of targets in the running moments
SMALLEST, LARGEST = 1e-4, 1e6  # bounds of σ


class PopArt(nn.Linear):
    """A linear value head [N, features] → V [N, 1], whose normalization changes without changing V.

    Attributes:
        mean, mean_square: running moments of the targets; ``sigma``: their standard deviation. 0-dim buffers.
        updates: number of updates so far.
    """

    mean: Tensor
    mean_square: Tensor
    sigma: Tensor
    updates: Tensor

    def __init__(self, features: int) -> None:
        super().__init__(features, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("mean_square", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sigma", torch.ones(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        return self.sigma * super().forward(features) + self.mean

    @torch.no_grad()
    def update(self, targets: Tensor) -> None:
        """Include targets [N] in the statistics and rescale the layer; without targets nothing changes.

        Update t has the weight β / (1 − (1 − β)ᵗ), so that the initial moments have no influence.
        """
        if not len(targets):
            return
        self.updates += 1
        rate = RATE / (1 - (1 - RATE) ** int(self.updates))
        old = self.mean.double()
        batch_variance, batch_mean = torch.var_mean(targets.double(), correction=0)
        # Rounded as it will be stored: a variance about another mean is wrong if σ is small beside μ.
        mean = (old + rate * (batch_mean - old)).to(self.mean.dtype).double()
        old_variance = (self.mean_square - old.square()).clamp(min=0)
        variance = (1 - rate) * (old_variance + (old - mean).square())
        variance += rate * (batch_variance + (batch_mean - mean).square())
        sigma = variance.sqrt().clamp(SMALLEST, LARGEST)
        self.weight.mul_(self.sigma / sigma)
        self.bias.copy_((self.sigma * self.bias + (old - mean)) / sigma)
        self.mean.copy_(mean)
        self.mean_square.copy_(variance + mean.square())
        self.sigma.copy_(sigma)
