"""Distributions over actions, parametrized by the outputs of a policy network."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from automl_ext.rl.networks.action_spaces import BoxScaling, unsupported


class Categorical(nn.Module):
    """A categorical distribution over discrete actions.

    The argument ``outputs`` of the methods contains logits, [N, actions]. The attribute ``outputs`` is their number per
    state.
    """

    def __init__(self, space: Discrete) -> None:
        super().__init__()
        self.outputs, self.start = int(space.n), int(space.start)

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sample actions [N] by the Gumbel-max trick."""
        return (outputs + rng.gumbel(size=outputs.shape)).argmax(-1)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the most probable actions, [N]."""
        return outputs.argmax(-1)

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a), [N]."""
        return -F.cross_entropy(outputs, actions, reduction="none")

    def entropy(self, outputs: Tensor) -> Tensor:
        """Return the entropy in nats, [N]."""
        logs = outputs.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Return KL(π ‖ π′) of the distributions π of ``outputs`` and π′ of ``others``, [N]."""
        logs = outputs.log_softmax(-1)
        return (logs.exp() * (logs - others.log_softmax(-1))).sum(-1)

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

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sample normalized actions, [N, dims]."""
        std = np.exp(self.log_std.numpy(force=True))
        return outputs + std * rng.standard_normal(outputs.shape, np.float32)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the most probable normalized actions, [N, dims]."""
        return outputs

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a), [N]."""
        z = (actions - outputs) * (-self.log_std).exp()
        return -(0.5 * z * z + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        """Return the entropy in nats, [N]."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(outputs))

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Return KL(π ‖ π′) of the distributions π of ``outputs`` and π′ of ``others``, [N].

        Both have the same standard deviation. It gets no gradient, because a larger one would lower every divergence.
        """
        return 0.5 * ((outputs - others) * (-self.log_std.detach()).exp()).square().sum(-1)

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
