"""Networks from observations to features, for vectors and for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.networks.groups import check_nothing_hidden
from automl_ext.rl.networks.parameters import check_layers
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short


class Body(nn.Sequential):
    """A network from observations [N, ...] to features [N, features].

    Vectors go through the hidden layers. Images of 84 × 84, channels first, first go through the convolutions of Mnih
    et al. 2015. Small images (MinAtar's 10 × 10, channels last) first go through one 3 × 3 convolution of 16 channels
    (Young and Tian 2019). Inputs have the environment's dtype: uint8 is divided by 255, booleans become 0 and 1.

    Args:
        space: space of the observations.
        hidden: sizes of the hidden layers.
        activation: activation after every hidden layer.
        normalize: normalize observations by their running statistics; vectors only.

    Attributes:
        features: number of features.
        norm: the :class:`RunningNorm` of the observations, or None without ``normalize``. Agents call
            ``body.norm.update(observations)``.

    Raises:
        UserError: unsupported observations, images with ``normalize``, or layers that do not fit into memory.
    """

    def __init__(
        self,
        space: gymnasium.Space,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(space, gymnasium.spaces.Box):
            raise UserError(f"observations: expected arrays (a Box space), got {short(space)}")
        shape = space.shape
        check_nothing_hidden(space)
        if normalize and len(shape) != 1:
            raise UserError(f"normalize: expected vectors of observations, got shape {list(shape)}")
        self.norm = RunningNorm(shape) if normalize else None  # a submodule, so forward() applies it first
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0
        if len(shape) == 1:
            layers: list[nn.Module] = []
            sizes = [shape[0], *hidden]
        elif len(shape) == 3 and shape[1:] == (84, 84):
            layers = convolutions(shape[0])
            sizes = [64 * 7 * 7, *hidden]
        elif len(shape) == 3 and shape[0] == shape[1] and shape[0] < 20:
            layers = [ChannelsFirst(), nn.Conv2d(shape[2], 16, 3), nn.ReLU(), nn.Flatten()]
            sizes = [16 * (shape[0] - 2) ** 2, *hidden]
        else:
            expected = "a vector, [channels, 84, 84] or a small [n, n, channels] image"
            raise UserError(f"observations: expected {expected}, got {list(shape)}")
        check_layers(sizes)
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.extend(layers)
        self.features = sizes[-1]

    def forward(self, observations: Tensor) -> Tensor:
        x = observations.float()
        return super().forward(x if self.scale == 1 else x * self.scale)


class RunningNorm(nn.Module):
    """Normalize observations [..., *shape] by their running mean and standard deviation, and clip them to ±10.

    Only :meth:`update` changes the statistics. They are buffers, so checkpoints contain them, and a replay stores
    observations without normalization. Before the first update the layer only clips.

    Args:
        shape: shape of one observation.
        clip: bound of the normalized values.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: Sequence[int], clip: float = 10.0, eps: float = 1e-8) -> None:
        super().__init__()
        self.clip, self.eps, self.shape = clip, eps, tuple(shape)
        self.register_buffer("mean", torch.zeros(self.shape, dtype=torch.float64))
        self.register_buffer("variance", torch.zeros(self.shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Update the statistics with a batch [..., *shape] (Chan, Golub and LeVeque 1979, merging of moments)."""
        x = observations.to(self.mean.device, torch.float64).reshape(-1, *self.shape)
        if not len(x):
            return
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        total = self.count + len(x)
        delta = mean - self.mean
        moment = self.variance * self.count + variance * len(x) + delta**2 * self.count * len(x) / total
        self.mean += delta * len(x) / total
        self.variance.copy_(moment / total)
        self.count.copy_(total)
        self.shift.copy_(self.mean)
        self.scale.copy_((self.variance + self.eps).rsqrt())

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.shift) * self.scale).clamp(-self.clip, self.clip)


class ChannelsFirst(nn.Module):
    """Permute [N, H, W, C] to [N, C, H, W] without a copy; the result is in channels-last memory format."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def convolutions(channels: int) -> list[nn.Module]:
    """Return the layers from [N, channels, 84, 84] to [N, 3136] (Mnih et al. 2015)."""
    return [
        nn.Conv2d(channels, 32, 8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
    ]


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """Initialize a layer with orthogonal weights and zero bias, as on-policy methods do. Return the layer."""
    orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def orthogonal_(weight: Tensor, gain: float) -> None:
    """Apply ``nn.init.orthogonal_`` with the same result for every number of threads.

    LAPACK's QR decomposition splits its sums by threads, so one thread computes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        nn.init.orthogonal_(weight, gain)
    finally:
        torch.set_num_threads(threads)


def float32_array(observations: np.ndarray) -> np.ndarray:
    """Convert observations of any float dtype to float32, in C order. Other dtypes are kept.

    Networks compute in float32, and a float64 replay would take twice the memory.
    """
    dtype = np.float32 if observations.dtype.kind == "f" else observations.dtype
    return np.ascontiguousarray(observations, dtype)


def float32_space(space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of the observations that :func:`float32_array` returns."""
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype.kind != "f" or space.dtype == np.float32:
        return space
    with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
        return gymnasium.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def to_tensor(observations: object, device: torch.device) -> Tensor:
    """Convert a NumPy batch to a tensor on the device, without a copy if possible."""
    return torch.as_tensor(observations, device=device)
