"""Networks from observations to features, for vectors and for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import gymnasium
import torch
from torch import Tensor, nn

from automl_ext.training.errors import UserError


class Body(nn.Sequential):
    """Observations [N, ...] to features [N, features].

    Vectors go through the hidden layers alone. Images of 84 × 84, channels first, go through the convolutions of Mnih
    et al. 2015 before them; small ones (MinAtar's 10 × 10, channels last) through one 3 × 3 convolution of 16 channels
    (Young and Tian 2019). Observations come as the environment gives them: uint8 images are divided by 255, boolean
    ones are 0 and 1.

    Raises:
        UserError: observations of a shape that is none of these.
    """

    def __init__(
        self, space: gymnasium.Space, hidden: Sequence[int] = (64, 64), activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        if not isinstance(space, gymnasium.spaces.Box):
            raise UserError(f"observations: expected arrays (Box), got {space}")
        shape = space.shape
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
            raise UserError(
                "observations: expected a vector, [channels, 84, 84] or a small [n, n, channels] image, "
                f"got {list(shape)}"
            )
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.extend(layers)
        self.features = sizes[-1]

    def forward(self, observations: Tensor) -> Tensor:
        x = observations if observations.is_floating_point() else observations.float()
        return super().forward(x if self.scale == 1 else x * self.scale)


class ChannelsFirst(nn.Module):
    """[N, H, W, C] → [N, C, H, W], without moving memory: the image is then in channels-last format."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def convolutions(channels: int) -> list[nn.Module]:
    """[N, channels, 84, 84] → [N, 3136] (Mnih et al. 2015)."""
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
    """Initialise as on-policy methods like it: orthogonal weights, no bias. Returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def to_tensor(observations: object, device: torch.device) -> Tensor:
    """A NumPy batch as a tensor on the device, without a copy where it can."""
    return torch.as_tensor(observations, device=device)
