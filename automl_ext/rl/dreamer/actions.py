"""What reads and writes observations, and what is predicted from the features of a state."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from automl_ext.rl.networks.action_spaces import BoxScaling, unsupported

SIDE = 64  # of images


def image_encoder(channels: int, depth: int) -> nn.Sequential:
    """Images [N, channels, 64, 64] to [N, 32 · depth] (Ha and Schmidhuber 2018)."""
    modules: list[nn.Module] = []
    for i in range(4):
        modules += [nn.Conv2d(channels, depth << i, 4, stride=2), nn.ReLU(inplace=True)]
        channels = depth << i
    return nn.Sequential(*modules, nn.Flatten())


def image_decoder(features: int, channels: int, depth: int) -> nn.Sequential:
    """Features [N, features] to images [N, channels, 64, 64]."""
    return nn.Sequential(
        nn.Linear(features, 32 * depth),
        nn.Unflatten(1, (32 * depth, 1, 1)),
        nn.ConvTranspose2d(32 * depth, 4 * depth, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4 * depth, 2 * depth, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(2 * depth, depth, 6, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(depth, channels, 6, stride=2),
    )


class OneHot:
    """Discrete actions as one-hot vectors. The gradient goes straight through the draw to the probabilities."""

    def __init__(self, space: Discrete) -> None:
        self.size = self.outputs = int(space.n)
        self.start = int(space.start)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Of Gumbel's distribution, [*shape, A]."""
        exponential = torch.empty(*shape, self.size, device=generator.device).exponential_(generator=generator)
        return -exponential.clamp_min(1e-30).log()

    def sample(self, outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., A] and the entropy [...] of what they are drawn from."""
        return _StraightThrough.apply(outputs, noise)

    def mode(self, outputs: Tensor) -> Tensor:
        return F.one_hot(outputs.argmax(-1), self.size).to(outputs.dtype)

    def explore(self, actions: Tensor, amount: float, generator: torch.Generator) -> Tensor:
        """With the chance ``amount`` another action, any of them."""
        n = len(actions)
        at_random = torch.rand(n, 1, generator=generator, device=actions.device) < amount
        return torch.where(at_random, self.random(n, generator), actions)

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(self.size, (n,), generator=generator, device=generator.device)
        return F.one_hot(drawn, self.size).float()

    def to_env(self, actions: Tensor) -> np.ndarray:
        return (actions.argmax(-1) + self.start).numpy(force=True)


class _StraightThrough(torch.autograd.Function):
    """A draw, one-hot, with the gradient that its probabilities would have; and the entropy."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        logs = outputs.log_softmax(-1)
        probs = logs.exp()
        entropy = -(probs * logs).sum(-1)
        ctx.save_for_backward(logs, probs, entropy)
        return torch.zeros_like(probs).scatter_(-1, (outputs + noise).argmax(-1, keepdim=True), 1), entropy

    @staticmethod
    def backward(ctx: Any, of_drawn: Tensor, of_entropy: Tensor) -> tuple[Tensor, None]:
        logs, probs, entropy = ctx.saved_tensors
        of_probs = of_drawn - (of_drawn * probs).sum(-1, keepdim=True)
        return probs * (of_probs - of_entropy.unsqueeze(-1) * (logs + entropy.unsqueeze(-1))), None


class TanhNormal:
    """Continuous actions in (−1, 1), mapped to the box of the environment (:class:`BoxScaling`)."""

    MEAN_SCALE, INIT_STD, MIN_STD = 5.0, 5.0, 1e-4

    def __init__(self, space: Box) -> None:
        self.size = math.prod(space.shape)
        self.outputs = 2 * self.size
        self.scaling = BoxScaling(space)
        self.raw_init_std = math.log(math.expm1(self.INIT_STD))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal, [*shape, A]."""
        return torch.randn(*shape, self.size, generator=generator, device=generator.device)

    def _mean_std(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = outputs.chunk(2, -1)
        mean = self.MEAN_SCALE * (mean / self.MEAN_SCALE).tanh()
        return mean, F.softplus(raw + self.raw_init_std) + self.MIN_STD

    def sample(self, outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., A], and an unbiased estimate of the entropy [...] of what they are drawn from."""
        mean, std = self._mean_std(outputs)
        x = torch.addcmul(mean, std, noise)
        # −log p(tanh x) = −log N(x) + log(1 − tanh² x), the last written so that it cannot be log 0.
        log_slope = 2 * (math.log(2) - x - F.softplus(-2 * x))
        entropy = (std.log() + 0.5 * noise.square() + 0.5 * math.log(2 * math.pi) + log_slope).sum(-1)
        return x.tanh(), entropy

    def mode(self, outputs: Tensor) -> Tensor:
        return self._mean_std(outputs)[0].tanh()

    def explore(self, actions: Tensor, amount: float, generator: torch.Generator) -> Tensor:
        """With normal noise, ``amount`` its standard deviation."""
        noise = torch.randn(actions.shape, generator=generator, device=actions.device)
        return (actions + amount * noise).clamp(-1, 1)

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, self.size, generator=generator, device=generator.device) * 2 - 1

    def to_env(self, actions: Tensor) -> np.ndarray:
        return self.scaling.to_env(actions.numpy(force=True))


def actions_of(space: gymnasium.Space) -> OneHot | TanhNormal:
    """How actions of a space are drawn.

    Raises:
        UserError: a space that is neither Discrete nor a Box of floats with all bounds within ±1e6.
    """
    if isinstance(space, Discrete):
        return OneHot(space)
    if isinstance(space, Box) and space.dtype.kind == "f" and BoxScaling(space).bounded.all():
        return TanhNormal(space)
    raise unsupported(space)
