"""Action distributions of Dreamer: how actions are sampled, explored and passed to the environment."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from automl_ext.ops.gumbel import gumbel_argmax
from automl_ext.rl.networks.action_spaces import BoxScaling, unsupported


class OneHot:
    """Discrete actions as one-hot vectors, with the straight-through gradient to the probabilities.

    Attributes:
        size: numbers per action, A.
        outputs: numbers per action that the actor outputs: A logits.
    """

    def __init__(self, space: Discrete) -> None:
        self.size = self.outputs = int(space.n)
        self.start = int(space.start)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample actions from the actor's outputs. Return actions [..., A] and the policy's entropy [...], in nats.

        The gradient of an action is that of the probabilities (straight through, Bengio et al. 2013).
        """
        log_probs = outputs.log_softmax(-1)
        probs = log_probs.exp()
        chosen = self.one_hot(gumbel_argmax(outputs.detach(), generator=generator), outputs)
        return chosen + (probs - probs.detach()), -(probs * log_probs).sum(-1)

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the most probable actions, [..., A]."""
        return self.one_hot(outputs.argmax(-1), outputs)

    def one_hot(self, indices: Tensor, like: Tensor) -> Tensor:
        """Return actions [..., A] in the dtype of ``like`` from their indices [...]."""
        return torch.zeros_like(like).scatter_(-1, indices.unsqueeze(-1), 1.0)

    def explore(self, actions: Tensor, amount: float, generator: torch.Generator) -> Tensor:
        """Replace each action [N, A] by a uniformly random one with probability ``amount``."""
        n = len(actions)
        at_random = torch.rand(n, 1, generator=generator, device=actions.device) < amount
        return torch.where(at_random, self.random(n, generator), actions)

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        """Sample uniformly random actions, [n, A]."""
        indices = torch.randint(self.size, (n,), generator=generator, device=generator.device)
        return F.one_hot(indices, self.size).float()

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Convert one-hot actions [N, A] to the environment's actions, int64 [N]."""
        return (actions.argmax(-1) + self.start).numpy(force=True)


class TanhNormal:
    """Continuous actions in (−1, 1), the tanh of a normal sample, mapped to the box of the environment.

    Args:
        space: action space.
        mode_samples: number of samples of which :meth:`mode` returns the most probable one; 0: the tanh of the mean.

    Attributes:
        size: numbers per action, A.
        outputs: numbers per action that the actor outputs: A means and A raw standard deviations.
    """

    MEAN_SCALE, INIT_STD, MIN_STD = 5.0, 5.0, 1e-4

    def __init__(self, space: Box, mode_samples: int = 0) -> None:
        self.size = math.prod(space.shape)
        self.outputs = 2 * self.size
        # The same noise for every state, so that the mode is a function of the state.
        self.mode_noise = torch.randn(mode_samples, 1, self.size, generator=torch.Generator().manual_seed(0))
        self.scaling = BoxScaling(space)
        self.raw_init_std = math.log(math.expm1(self.INIT_STD))

    def _mean_std(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = outputs.chunk(2, -1)
        mean = self.MEAN_SCALE * (mean / self.MEAN_SCALE).tanh()
        return mean, F.softplus(raw + self.raw_init_std) + self.MIN_STD

    def sample(self, outputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample actions from the actor's outputs.

        Returns:
            Actions [..., A], and an unbiased estimate of the policy's entropy [...], in nats: −log π of the action.
        """
        shape = *outputs.shape[:-1], self.size
        noise = torch.randn(shape, generator=generator, dtype=outputs.dtype, device=outputs.device)
        return self._action(outputs, noise)

    def _action(self, outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the action of standard normal noise [..., A], and −log π of it [...]."""
        mean, std = self._mean_std(outputs)
        x = torch.addcmul(mean, std, noise)
        # −log p(tanh x) = −log N(x) + log(1 − tanh² x); this form of the last term never takes log 0.
        log_slope = 2 * (math.log(2) - x - F.softplus(-2 * x))
        entropy = (std.log() + 0.5 * noise.square() + 0.5 * math.log(2 * math.pi) + log_slope).sum(-1)
        return x.tanh(), entropy

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the most probable actions, [N, A] for outputs [N, 2 A].

        An action is the most probable one of ``mode_samples`` samples, as in the authors' code (``SampleDist``), or the
        tanh of the means. These differ: the tanh of a normal variable with a large standard deviation has its modes
        near −1 and 1.
        """
        if not len(self.mode_noise):
            return self._mean_std(outputs)[0].tanh()
        actions, surprise = self._action(outputs, self.mode_noise.to(outputs.device).expand(-1, len(outputs), -1))
        return actions.take_along_dim(surprise.argmin(0)[None, :, None], 0)[0]

    def explore(self, actions: Tensor, amount: float, generator: torch.Generator) -> Tensor:
        """Add normal noise with standard deviation ``amount`` to actions [N, A]; clip to [−1, 1]."""
        noise = torch.randn(actions.shape, generator=generator, device=actions.device)
        return (actions + amount * noise).clamp(-1, 1)

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        """Sample uniformly random actions from [−1, 1], [n, A]."""
        return torch.rand(n, self.size, generator=generator, device=generator.device) * 2 - 1

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Map actions [N, A] to the environment's box, [N, *shape]."""
        return self.scaling.to_env(actions.numpy(force=True))


def actions_of(space: gymnasium.Space, mode_samples: int = 0) -> OneHot | TanhNormal:
    """Return the action distribution of an action space; ``mode_samples`` is for :class:`TanhNormal`.

    Raises:
        UserError: a space that is neither Discrete nor a Box of floats with all bounds within ±1e6.
    """
    if isinstance(space, Discrete):
        return OneHot(space)
    if isinstance(space, Box) and space.dtype.kind == "f" and BoxScaling(space).bounded.all():
        return TanhNormal(space, mode_samples)
    raise unsupported(space)
