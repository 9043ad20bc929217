"""The networks of policy-gradient algorithms: a stochastic policy and its value function."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from torch import Tensor, nn

from automl_ext.ops.networks import FusedMLP
from automl_ext.rl.envs.packed import PackedBox, masked_space
from automl_ext.rl.networks.body import Body, is_vector, orthogonal, orthogonal_layers
from automl_ext.rl.networks.distributions import distribution_of
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.networks.parameters import check_layers

GAIN = math.sqrt(2)  # of the hidden layers' orthogonal weights


def submodule(name: str) -> Any:
    """Return a property that reads a submodule, faster than ``nn.Module``, which first looks for an attribute."""

    def read(module: nn.Module) -> nn.Module | None:
        if name not in module._modules:
            raise AttributeError(f"{type(module).__name__} has no {name}")
        return module._modules[name]

    return property(read)


class ActorCritic(nn.Module):
    """A policy π(a|s) and its value V(s).

    Vectors of floats, and packed observations without images, have separate perceptrons for policy and value. Images,
    vectors of bytes and observations with an encoder have one :class:`Body` with two heads. Actions that the mask of an
    observation excludes have the logit −∞: their probability is 0.

    Args:
        observation_space: space of the observations.
        action_space: space of the actions.
        hidden: sizes of the hidden layers.
        normalize: normalize vectors by their running statistics, which :meth:`saw` updates.
        body, layer_norm, encoder: ``kind``, ``layer_norm`` and ``encoder`` of :class:`Body`. The initial weights of an
            encoder are not changed.

    Attributes:
        distribution: distribution of the actions, see :func:`~automl_ext.rl.networks.distributions.distribution_of`.
        body: the :class:`Body` that policy and value share; without layers if both are perceptrons.
        actor, critic: maps of the body's outputs to the distribution's parameters, and to the value.

    Raises:
        UserError: an unsupported action space, observations that :class:`Body` does not support, or layers that do not
            fit into memory.
    """

    distribution = submodule("distribution")
    body = submodule("body")
    actor = submodule("actor")
    critic = submodule("critic")

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        hidden: tuple[int, ...] = (64, 64),
        normalize: bool = False,
        *,
        body: Kind = "auto",
        layer_norm: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.distribution = distribution_of(action_space)
        self.masked = masked_space(observation_space)
        outputs = self.distribution.outputs
        packed = isinstance(observation_space, PackedBox)
        floats = is_vector(observation_space) and (packed or np.issubdtype(observation_space.dtype, np.floating))
        if not (floats and hidden and encoder is None and body == "auto"):
            self.body = Body(observation_space, hidden, nn.ReLU, normalize, body, layer_norm, encoder)
            orthogonal_layers(self.body)
            self.actor = orthogonal(nn.Linear(self.body.features, outputs), 0.01)
            self.critic = orthogonal(nn.Linear(self.body.features, 1), 1.0)
            return
        self.body = Body(observation_space, (), normalize=normalize)
        features = self.body.features
        if layer_norm:
            self.actor, self.critic = (
                nn.Sequential(body, orthogonal(nn.Linear(hidden[-1], units), gain))
                for body, units, gain in (
                    (layer_normalized(features, hidden), outputs, 0.01),
                    (layer_normalized(features, hidden), 1, 1.0),
                )
            )
        else:
            check_layers([features, *hidden], networks=2)
            self.actor = orthogonal_mlp(FusedMLP(features, hidden, outputs, "tanh"), 0.01)
            self.critic = orthogonal_mlp(FusedMLP(features, hidden, 1, "tanh"), 1.0)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distribution's parameters, [N, outputs], and the values, [N]."""
        x = self.body(observations)
        return self.allowed(self.actor(x), observations), self.critic(x).squeeze(-1)

    def policy(self, observations: Tensor) -> Tensor:
        """Return the distribution's parameters only, [N, outputs]."""
        return self.allowed(self.actor(self.body(observations)), observations)

    def allowed(self, outputs: Tensor, observations: Tensor) -> Tensor:
        """Return logits [N, outputs] with −∞ for the actions that the observations' masks exclude."""
        if self.masked is None:
            return outputs
        return outputs.masked_fill(~self.masked.mask(observations), -math.inf)

    def values(self, observations: Tensor) -> Tensor:
        """Return the values only, [N]."""
        values: Tensor = self.critic(self.body(observations))
        return values.squeeze(-1)

    def saw(self, observations: Tensor) -> None:
        """Update the running statistics with observations [N, ...], if observations are normalized."""
        if self.body.norm is not None:
            self.body.norm.update(observations)

    # PopArt normalizes values and overrides the following methods, see automl_ext.rl.networks.grouped.

    def saw_returns(self, observations: Tensor, returns: Tensor) -> None:
        """Update the statistics of values with returns [N] of the observations [N, ...], if values are normalized."""

    def scaled(self, x: Tensor, observations: Tensor) -> Tensor:
        """Return values, returns or advantages [N]; with normalized values, in units of their standard deviation."""
        return x


def layer_normalized(features: int, hidden: tuple[int, ...]) -> Body:
    """Build hidden tanh layers with layer normalization, with orthogonal weights."""
    body = Body(Box(-math.inf, math.inf, (features,)), hidden, nn.Tanh, layer_norm=True)
    orthogonal_layers(body)
    return body


def orthogonal_mlp(mlp: FusedMLP, gain: float) -> FusedMLP:
    """Initialize a perceptron with orthogonal weights and zero biases; ``gain`` is that of the last layer."""
    *hidden, last = (layer for layer in mlp if isinstance(layer, nn.Linear))
    for layer in hidden:
        orthogonal(layer, GAIN)
    orthogonal(last, gain)
    return mlp
