"""Distributions over actions, parametrized by the outputs of a policy network."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
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


class MultiCategorical(nn.Module):
    """Independent categorical distributions over K discrete actions.

    ``outputs`` are the logits of the first action, then those of the second one, and so on, [N, sum of nvec].
    """

    places: Tensor

    def __init__(self, space: MultiDiscrete) -> None:
        super().__init__()
        self.shape, self.start, self.dtype = space.shape, space.start, space.dtype
        sizes = [int(n) for n in space.nvec.ravel()]
        self.actions, self.largest, self.outputs = len(sizes), max(sizes), sum(sizes)
        # The places of each action's logits; shorter ones are padded with the place of an added logit of −∞.
        every = [*torch.arange(self.outputs).split(sizes)]
        padded = nn.utils.rnn.pad_sequence(every, batch_first=True, padding_value=self.outputs)
        self.register_buffer("places", padded, persistent=False)

    def sample(self, outputs: Tensor, rng: torch.Generator) -> Tensor:
        """Sample actions, int64 [N, K]."""
        return gumbel_argmax(self.rows(outputs), generator=rng)

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the most probable actions, int64 [N, K]."""
        return self.rows(outputs).argmax(-1)

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a), [N]."""
        return self.evaluate(outputs, actions)[0]

    def evaluate(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log π(a) and the entropy in nats, the sums over the K actions, [N] each."""
        log_probs, entropy = categorical_log_probs(self.rows(outputs), actions)
        return log_probs.sum(-1), entropy.sum(-1)

    def rows(self, outputs: Tensor) -> Tensor:
        """Return the logits of each action, [N, K, largest of nvec]."""
        if self.outputs == self.actions * self.largest:
            return outputs.unflatten(1, (self.actions, self.largest))
        return F.pad(outputs, (0, 1), value=-math.inf)[:, self.places]

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions to the environment's numbering, [N, *shape]."""
        return (actions.reshape(-1, *self.shape) + self.start).astype(self.dtype)


class Bernoulli(nn.Module):
    """Independent distributions over K binary actions; ``outputs`` are the log-odds of 1, [N, K]."""

    def __init__(self, space: MultiBinary) -> None:
        super().__init__()
        self.shape, self.outputs, self.dtype = space.shape, math.prod(space.shape), space.dtype

    def sample(self, outputs: Tensor, rng: torch.Generator) -> Tensor:
        """Sample actions, bool [N, K]."""
        return torch.rand(outputs.shape, generator=rng, device=outputs.device) < outputs.sigmoid()

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the most probable actions, bool [N, K]."""
        return outputs > 0

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a), [N]."""
        return F.logsigmoid(torch.where(actions, outputs, -outputs)).sum(-1)

    def evaluate(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log π(a) and the entropy in nats, the sums over the K actions, [N] each."""
        entropy = F.softplus(outputs) - outputs * outputs.sigmoid()
        return self.log_probs(outputs, actions), entropy.sum(-1)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions to the environment's, [N, *shape]."""
        return actions.reshape(-1, *self.shape).astype(self.dtype)


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


def distribution_of(space: gymnasium.Space) -> Categorical | MultiCategorical | Bernoulli | DiagonalGaussian:
    """Make the distribution over an action space.

    Raises:
        UserError: the space is not Discrete, MultiDiscrete, MultiBinary or a Box of floats.
    """
    if isinstance(space, Discrete):
        return Categorical(space)
    if isinstance(space, MultiDiscrete):
        return MultiCategorical(space)
    if isinstance(space, MultiBinary):
        return Bernoulli(space)
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space)
    raise unsupported(space)
