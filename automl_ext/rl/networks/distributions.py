"""Distributions over actions, parametrized by the outputs of a policy network."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from automl_ext.ops.gumbel import gumbel_argmax
from automl_ext.ops.policy import categorical_log_probs
from automl_ext.rl.networks.action_spaces import BoxScaling, unsupported


class Categorical(nn.Module):
    """A categorical distribution over discrete actions.

    The argument ``outputs`` of the methods contains logits, [N, actions]. The attribute ``outputs`` is their number per
    state.
    """

    def __init__(self, space: Discrete) -> None:
        super().__init__()
        self.outputs, self.start = int(space.n), int(space.start)

    def sample(self, outputs: Tensor, rng: torch.Generator) -> Tensor:
        """Sample actions, int64 [N], by the Gumbel-max trick."""
        return gumbel_argmax(outputs, generator=rng)

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the most probable actions, int64 [N]."""
        return outputs.argmax(-1)

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a), [N]."""
        return self.evaluate(outputs, actions)[0]

    def evaluate(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log π(a) and the entropy in nats, [N] each."""
        return categorical_log_probs(outputs, actions)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions to the environment's numbering."""
        return actions + self.start if self.start else actions


class DiagonalGaussian(nn.Module):
    """A normal distribution over continuous actions; ``outputs`` are means, [N, dims].

    The standard deviation is learned and does not depend on the state. Actions are normalized: :class:`BoxScaling`
    maps [−1, 1] to the environment's box and clips. log π is the density of the normalized action before clipping.
    """

    def __init__(self, space: Box) -> None:
        super().__init__()
        self.outputs, self.scaling = math.prod(space.shape), BoxScaling(space)
        self.scaling.warn_if_unscaled()
        self.log_std = nn.Parameter(torch.zeros(self.outputs))

    def sample(self, outputs: Tensor, rng: torch.Generator) -> Tensor:
        """Sample normalized actions, [N, dims]."""
        noise = torch.randn(outputs.shape, generator=rng, device=outputs.device)
        return torch.addcmul(outputs, self.log_std.exp(), noise)

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the most probable normalized actions, [N, dims]."""
        return outputs

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a), [N]."""
        z = (actions - outputs) * (-self.log_std).exp()
        return -(0.5 * z * z + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def evaluate(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log π(a) and the entropy in nats, [N] each."""
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        return self.log_probs(outputs, actions), entropy.expand(len(outputs))

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Map normalized actions [N, dims] to the environment's box, [N, *shape]."""
        return self.scaling.to_env(actions)


def distribution_of(space: gymnasium.Space) -> Categorical | DiagonalGaussian:
    """Make the distribution over an action space.

    Raises:
        UserError: the space is neither Discrete nor a Box of floats.
    """
    if isinstance(space, Discrete):
        return Categorical(space)
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space)
    raise unsupported(space)
