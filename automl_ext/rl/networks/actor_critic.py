"""The networks of policy-gradient algorithms: a stochastic policy and its value function."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.networks.body import Body, RunningNorm, orthogonal, orthogonal_, orthogonal_layers, to_tensor
from automl_ext.rl.networks.distributions import distribution_of
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.networks.groups import check_nothing_hidden
from automl_ext.rl.networks.parameters import check_layers


class TwinMLP(nn.Module):
    """Two networks of tanh layers, evaluated together by batched products, which halves the number of calls.

    Maps observations [N, inputs] to features [2, N, features]. ``norm`` is as in :class:`Body`.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], normalize: bool = False) -> None:
        super().__init__()
        self.norm = RunningNorm((inputs,)) if normalize else None
        sizes = [inputs, *hidden]
        check_layers(sizes, networks=2)
        self.weights = nn.ParameterList(torch.empty(2, i, o) for i, o in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(2, 1, o) for o in hidden)
        for weight in self.weights:
            for one in weight.data:
                orthogonal_(one, math.sqrt(2))

    def forward(self, observations: Tensor) -> Tensor:
        x = observations.float()
        if self.norm is not None:
            x = self.norm(x)
        x = x.expand(2, *x.shape)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = torch.baddbmm(bias, x, weight).tanh()
        return x


class TwinBodies(nn.Module):
    """Two networks of tanh layers with layer normalization. Maps observations [N, inputs] to [2, N, features]."""

    def __init__(self, space: gymnasium.Space, hidden: tuple[int, ...], normalize: bool = False) -> None:
        super().__init__()
        self.norm = RunningNorm(space.shape or ()) if normalize else None
        self.policy, self.value = (Body(space, hidden, nn.Tanh, layer_norm=True) for _ in range(2))
        for body in (self.policy, self.value):
            orthogonal_layers(body)

    def forward(self, observations: Tensor) -> Tensor:
        x = observations.float() if self.norm is None else self.norm(observations.float())
        return torch.stack([self.policy(x), self.value(x)])


class ActorCritic(nn.Module):
    """A policy π(a|s) and its value V(s).

    Vectors of floats have separate networks for policy and value. Images, vectors of bytes and observations with an
    encoder have one :class:`Body` with two heads.

    Args:
        observation_space: space of the observations.
        action_space: space of the actions.
        hidden: sizes of the hidden layers.
        normalize: normalize vectors by their running statistics, which :meth:`saw` updates.
        body, layer_norm, encoder: ``kind``, ``layer_norm`` and ``encoder`` of :class:`Body`. The initial weights of an
            encoder are not changed.

    Attributes:
        distribution: :class:`Categorical` for Discrete actions, :class:`DiagonalGaussian` for Box.

    Raises:
        UserError: an unsupported action space, observations that :class:`Body` does not support, or layers that do not
            fit into memory.
    """

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
        check_nothing_hidden(observation_space)
        self.distribution = distribution_of(action_space)
        shape = observation_space.shape or ()
        self.body: TwinMLP | TwinBodies | Body
        floats = len(shape) == 1 and np.issubdtype(observation_space.dtype, np.floating)
        if floats and hidden and encoder is None and body == "auto":
            features = hidden[-1]
            if layer_norm:
                self.body = TwinBodies(observation_space, hidden, normalize)
            else:
                self.body = TwinMLP(shape[0], hidden, normalize)
        else:
            self.body = Body(observation_space, hidden, nn.ReLU, normalize, body, layer_norm, encoder)
            features = self.body.features
            orthogonal_layers(self.body)
        self.policy_head = orthogonal(nn.Linear(features, self.distribution.outputs), 0.01)
        self.value_head = orthogonal(nn.Linear(features, 1), 1.0)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distribution's parameters, [N, outputs], and the values, [N]."""
        features = self.body(observations)
        for_policy, for_value = (features, features) if isinstance(self.body, Body) else features
        return self.policy_head(for_policy), self.value_head(for_value).squeeze(-1)

    def saw(self, observations: Tensor) -> None:
        """Update the running statistics with observations [N, ...], if observations are normalized."""
        if self.body.norm is not None:
            self.body.norm.update(observations)


def is_twin(network: ActorCritic) -> bool:
    """Return whether a network is a :class:`TwinMLP` with two heads, and no subclass with other layers."""
    return type(network) is ActorCritic and isinstance(network.body, TwinMLP)


def acting(network: ActorCritic, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from observations to the distribution's parameters, NumPy arrays.

    A small network on the CPU is evaluated in NumPy, on arrays that share memory with the parameters. The parameters
    must therefore not be moved. For a few observations NumPy is faster than torch, whose calls have more overhead.
    """
    if is_twin(network) and isinstance(network.body, TwinMLP) and device.type == "cpu":
        body, head = network.body, network.policy_head
        weights = [*(x.detach().numpy()[0] for x in body.weights), head.weight.detach().numpy().T]
        biases = [*(x.detach().numpy()[0] for x in body.biases), head.bias.detach().numpy()]

        norm = body.norm

        def outputs(observations: np.ndarray) -> np.ndarray:
            x = observations.astype(np.float32, copy=False)
            if norm is not None:
                x = norm(torch.from_numpy(x)).numpy()
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                x = np.tanh(x @ weight + bias)
            return x @ weights[-1] + biases[-1]

        return outputs

    @torch.inference_mode()
    def outputs_by_torch(observations: np.ndarray) -> np.ndarray:
        return network(to_tensor(observations, device))[0].numpy(force=True)

    return outputs_by_torch
