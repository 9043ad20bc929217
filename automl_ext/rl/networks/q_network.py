"""Q-networks: the value of every action, or a distribution over values, from observations.

A network is a :class:`Body`, one hidden layer and an output layer. The network parts of Rainbow (Hessel et al. 2018)
are options: dueling streams, noisy layers and distributions over atoms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.ops.networks import FusedMLP
from automl_ext.rl.envs.packed import masked_space
from automl_ext.rl.networks.body import Body, is_vector
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.networks.parameters import check_layers


class NoisyLinear(nn.Module):
    """A linear layer with weight noise of learned scale (Fortunato et al. 2018, section 3b, factorized noise):

    w = μ + σ ⊙ f(ε_out) f(ε_in)ᵀ,  b = μ_b + σ_b ⊙ f(ε_out),  f(x) = sign(x) √|x|

    The noise is constant until :func:`resample` draws new noise. In ``eval()`` mode there is no noise.

    Args:
        inputs, outputs: sizes.
        sigma: σ₀. Initially σ is σ₀ / √inputs, and μ is uniform in ±1 / √inputs.
    """

    noise_in: Tensor  # f(ε_in), [inputs], or [N, inputs] with noise of its own for each row of the input
    noise_out: Tensor  # f(ε_out), [outputs] or [N, outputs]

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        # Not in the state, because it is drawn anew before every use.
        self.register_buffer("noise_in", torch.zeros(inputs), persistent=False)
        self.register_buffer("noise_out", torch.zeros(outputs), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [N, outputs] from [N, inputs]."""
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        if self.noise_in.ndim == 2:  # faster for few rows; the form below is faster for large batches
            noisy = F.linear(self.noise_in * x, self.weight_sigma, self.bias_sigma)
            return torch.addcmul(F.linear(x, self.weight, self.bias), self.noise_out, noisy)
        noise = torch.outer(self.noise_out, self.noise_in)
        weight = torch.addcmul(self.weight, self.weight_sigma, noise)
        return F.linear(x, weight, torch.addcmul(self.bias, self.bias_sigma, self.noise_out))


def noisy_layers(network: nn.Module) -> list[NoisyLinear]:
    """Return the noisy layers for :func:`resample`. Call it once, because finding them takes longer than resampling."""
    return [layer for layer in network.modules() if isinstance(layer, NoisyLinear)]


def resample(layers: Sequence[NoisyLinear], generator: torch.Generator, rows: int | None = None) -> None:
    """Draw new noise for every layer; with ``rows`` = N, separate noise for each of the N rows of the next input."""
    if not layers:
        return
    sizes = [size for layer in layers for size in reversed(layer.weight.shape)]
    x = torch.randn([sum(sizes)] if rows is None else [rows, sum(sizes)], generator=generator, device=generator.device)
    parts = (x.sign() * x.abs().sqrt()).split(sizes, -1)
    for layer, noise_in, noise_out in zip(layers, parts[::2], parts[1::2], strict=True):
        layer.noise_in, layer.noise_out = noise_in, noise_out


class QNetwork(nn.Module):
    """A network from observations [N, ...] to Q(s, ·) or to the logits of its distributions.

    Args:
        space: space of the observations.
        actions: number of actions, A.
        hidden: sizes of the hidden layers, at least one. The last layer belongs to the head.
        dueling: half of the head's hidden layer computes the value and half the advantages, Q = V + A − mean A
            (Wang et al. 2016, eq. 9), per atom if there are atoms.
        noisy: the layers of the head are :class:`NoisyLinear`.
        atoms: number of atoms of each action's distribution over linspace(v_min, v_max, atoms) (C51, Bellemare et al.
            2017). None: Q is a number.
        v_min, v_max: range of the atoms.
        sigma: σ₀ of the noisy layers.
        normalize: normalize vectors by their running statistics; see :class:`Body`.
        body, encoder: ``kind`` and ``encoder`` of :class:`Body`.
        layer_norm: normalize the outputs of every hidden layer before the activation; if dueling, each stream
            separately.

    Raises:
        ValueError: ``hidden`` is empty or has a layer of fewer than two units.
        UserError: observations that :class:`Body` does not support, or layers that do not fit into memory.
    """

    support: Tensor

    def __init__(
        self,
        space: gymnasium.Space,
        actions: int,
        hidden: Sequence[int] = (256, 256),
        *,
        dueling: bool = False,
        noisy: bool = False,
        atoms: int | None = None,
        v_min: float = -10.0,
        v_max: float = 10.0,
        sigma: float = 0.5,
        normalize: bool = False,
        body: Kind = "auto",
        layer_norm: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 2:
            raise ValueError(f"hidden: expected at least one layer, of two units or more, got {tuple(hidden)}")
        self.actions, self.atoms, self.masked = actions, atoms, masked_space(space)
        self.register_buffer("support", torch.linspace(v_min, v_max, atoms or 1), persistent=False)
        plain = not (dueling or noisy or layer_norm)
        # A plain perceptron is one op, so the body of vectors has no layers.
        inner = () if plain and encoder is None and is_vector(space) else hidden[:-1]
        self.body = Body(space, inner, nn.ReLU, normalize, body, layer_norm, encoder)
        self.head: FusedMLP | DuelingHead
        if plain:
            layers = hidden[len(inner) :]
            check_layers((self.body.features, *layers, actions * (atoms or 1)))
            self.head = FusedMLP(self.body.features, layers, actions * (atoms or 1), "relu")
        else:
            self.head = DuelingHead(
                self.body.features, actions, hidden[-1], atoms or 1, dueling, noisy, sigma, layer_norm
            )

    def forward(self, observations: Tensor) -> Tensor:
        """Compute Q [N, A], or logits [N, A, atoms], from observations [N, ...]."""
        out: Tensor = self.head(self.body(observations))
        return out if self.atoms is None else out.unflatten(1, (self.actions, self.atoms))

    def q(self, out: Tensor, observations: Tensor) -> Tensor:
        """Convert the result of :meth:`forward` to Q [N, A], the means of the distributions.

        Q is −∞ for the actions that the observations' masks exclude, so that a maximum never selects them.
        """
        q = out if self.atoms is None else out.softmax(-1) @ self.support
        return q if self.masked is None else q.masked_fill(~self.masked.mask(observations), -math.inf)


class DuelingHead(nn.Module):
    """One hidden layer of ReLU and an output layer, [N, features] → [N, actions · atoms].

    Args: see :class:`QNetwork`. Without ``dueling`` there is one stream.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        hidden: int,
        atoms: int,
        dueling: bool,
        noisy: bool,
        sigma: float,
        layer_norm: bool,
    ) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Module:
            return NoisyLinear(inputs, outputs, sigma) if noisy else nn.Linear(inputs, outputs)

        self.actions, self.atoms, width = actions, atoms, hidden // 2 if dueling else hidden
        check_layers((features, width * (1 + dueling), (actions + dueling) * atoms))
        self.hidden = linear(features, width * (1 + dueling))  # both streams in one product
        # LayerNorm is GroupNorm with one group, in less time.
        norm = nn.GroupNorm(2, 2 * width) if dueling else nn.LayerNorm(width)
        self.layer_norm = norm if layer_norm else None
        self.advantage = linear(width, actions * atoms)
        self.value = linear(width, atoms) if dueling else None

    def forward(self, x: Tensor) -> Tensor:
        features = self.hidden(x)
        features = F.relu(features if self.layer_norm is None else self.layer_norm(features))
        if self.value is None:
            out: Tensor = self.advantage(features)
            return out
        for_value, for_advantage = features.chunk(2, dim=1)
        advantage = self.advantage(for_advantage).unflatten(1, (self.actions, self.atoms))
        value = self.value(for_value).unsqueeze(1)
        return (value + advantage - advantage.mean(1, keepdim=True)).flatten(1)
