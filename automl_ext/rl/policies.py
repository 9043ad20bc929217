"""Stochastic policies and their values: what the policy-gradient algorithms train."""

from __future__ import annotations

import math
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from automl_ext.rl.networks import Body, orthogonal, to_tensor
from automl_ext.training.errors import UserError


class Categorical(nn.Module):
    """Discrete actions; ``outputs`` are logits, [N, actions]."""

    def __init__(self, space: Discrete) -> None:
        super().__init__()
        self.outputs, self.start = int(space.n), int(space.start)

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The Gumbel-max trick; −log of an exponential variate is a Gumbel one."""
        return (outputs - np.log(rng.standard_exponential(outputs.shape, np.float32))).argmax(-1)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(-1)

    def log_probs_and_entropy(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a), [N], and the entropy of π in nats, [N]."""
        logs = outputs.log_softmax(-1)
        return -F.nll_loss(logs, actions, reduction="none"), -(logs.exp() * logs).sum(-1)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """As the environment wants them."""
        return actions + self.start if self.start else actions


class DiagonalGaussian(nn.Module):
    """Continuous actions; ``outputs`` are means, [N, dims]. The standard deviation is learned, the same in all states.

    The environment gets actions clipped to its box, log π is that of the action as drawn.
    """

    def __init__(self, space: Box) -> None:
        super().__init__()
        self.outputs, self.shape = math.prod(space.shape), space.shape
        self.low, self.high = space.low, space.high
        self.log_std = nn.Parameter(torch.zeros(self.outputs))

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        std = np.exp(self.log_std.numpy(force=True))
        return outputs + std * rng.standard_normal(outputs.shape, np.float32)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def log_probs_and_entropy(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a), [N], and the entropy of π in nats, [N]."""
        z = (actions - outputs) * (-self.log_std).exp()
        log_probs = -(0.5 * z * z + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        return log_probs, entropy.expand(len(outputs))

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """As the environment wants them."""
        return np.clip(actions.reshape(-1, *self.shape), self.low, self.high)


class ActorCritic(nn.Module):
    """A policy π(a|s) and its value V(s).

    From vectors: two networks, one each. From images: one body of convolutions with two heads.

    Attributes:
        distribution: :class:`Categorical` for Discrete actions, :class:`DiagonalGaussian` for Box.

    Raises:
        UserError: another action space, or observations that no :class:`Body` takes.
    """

    def __init__(
        self, observation_space: gymnasium.Space, action_space: gymnasium.Space, hidden: tuple[int, ...] = (64, 64)
    ) -> None:
        super().__init__()
        self.distribution = distribution_of(action_space)
        self.policy_body = Body(observation_space, hidden)
        is_image = len(observation_space.shape or ()) > 1
        self.value_body = self.policy_body if is_image else Body(observation_space, hidden)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                orthogonal(layer, math.sqrt(2))
        features = self.policy_body.features
        self.policy_head = orthogonal(nn.Linear(features, self.distribution.outputs), 0.01)
        self.value_head = orthogonal(nn.Linear(features, 1), 1.0)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs for the distribution, [N, outputs], and values, [N]."""
        features = self.policy_body(observations)
        outputs = self.policy_head(features)
        if self.value_body is not self.policy_body:
            features = self.value_body(observations)
        return outputs, self.value_head(features).squeeze(-1)

    def outputs(self, observations: Tensor) -> Tensor:
        """The distribution's alone: acting needs no values."""
        return self.policy_head(self.policy_body(observations))


def acting(network: ActorCritic, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations to the distribution's outputs, in NumPy.

    A small network on the CPU is evaluated in NumPy, on the memory of its parameters: for 8 observations torch takes
    four times as long, nearly all of it the cost of its calls. The parameters must then stay where they are.
    """
    layers = [*network.policy_body, network.policy_head]
    if device.type == "cpu" and all(isinstance(layer, (nn.Linear, nn.Tanh)) for layer in layers):
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        *hidden, head = [(x.weight.detach().numpy().T, x.bias.detach().numpy()) for x in linear]

        def outputs(observations: np.ndarray) -> np.ndarray:
            x = observations.astype(np.float32, copy=False)
            for weight, bias in hidden:
                x = np.tanh(x @ weight + bias)
            return x @ head[0] + head[1]

        return outputs

    @torch.inference_mode()
    def outputs_by_torch(observations: np.ndarray) -> np.ndarray:
        return network.outputs(to_tensor(observations, device)).numpy(force=True)

    return outputs_by_torch


def distribution_of(space: gymnasium.Space) -> Categorical | DiagonalGaussian:
    """The distribution over an action space.

    Raises:
        UserError: a space that none covers.
    """
    if isinstance(space, Discrete):
        return Categorical(space)
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space)
    raise UserError(
        f"action space {space}: a2c, a3c and reinforce take Discrete and Box of floats, dqn and rainbow Discrete"
    )
