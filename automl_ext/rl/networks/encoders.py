"""Bodies for images: layers from an image to a vector of features.

Every function returns the layers and the number of features. Images have any size that the layers fit on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from automl_ext.rl.networks.modes import evaluating
from automl_ext.training.errors import UserError

Layers = tuple[list[nn.Module], int]
Kind = Literal["auto", "nature", "small", "impala"]  # the option ``body``; auto chooses by the image's size

NATURE_SIDE = 36  # smallest side of the images that nature() takes


def nature(channels: int, height: int, width: int) -> Layers:
    """Build the convolutions of Mnih et al. 2015, for images of at least 36 × 36 (in the paper, 84 × 84)."""
    layers = [
        nn.Conv2d(channels, 32, 8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
    ]

    def side(n: int) -> int:
        return ((n - 8) // 4 + 1 - 4) // 2 + 1 - 2

    return layers, 64 * side(height) * side(width)


def small(channels: int, height: int, width: int) -> Layers:
    """Build the 3 × 3 convolution with 16 channels for MinAtar (Young and Tian 2019), for images of at least 3 × 3."""
    return [nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten()], 16 * (height - 2) * (width - 2)


def impala(channels: int, height: int, width: int, depths: Sequence[int] = (16, 32, 32)) -> Layers:
    """Build the residual network of IMPALA (Espeholt et al. 2018, figure 3), for images of any size.

    Each stage is a convolution, a max pooling that halves the sides, and two residual blocks. The paper follows it with
    a dense layer of 256 units.
    """
    layers: list[nn.Module] = []
    for depth in depths:
        layers += [nn.Conv2d(channels, depth, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(depth), Residual(depth)]
        channels, height, width = depth, (height + 1) // 2, (width + 1) // 2
    return [*layers, nn.ReLU(), nn.Flatten()], channels * height * width


class Residual(nn.Module):
    """A residual block of IMPALA: x + conv(relu(conv(relu(x)))), [N, C, H, W] → [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


KINDS: dict[str, tuple[Callable[[int, int, int], Layers], int]] = {  # kind: its function and the smallest side
    "nature": (nature, NATURE_SIDE),
    "small": (small, 3),
    "impala": (impala, 1),
}


class ChannelsFirst(nn.Module):
    """Permute images [N, H, W, C] to [N, C, H, W] without a copy; the result is in channels-last memory format.

    Stacked images [N, n, H, W, C] become [N, n·C, H, W], with a copy to the same format.
    """

    def forward(self, x: Tensor) -> Tensor:
        return (x if x.dim() == 4 else torch.cat(x.unbind(1), -1)).permute(0, 3, 1, 2)


def channels_last(shape: Sequence[int]) -> bool:
    """Return whether the last axis of an image's shape has the channels, and not the first one.

    Two equally long neighbors are the sides of the image: [10, 10, n] and [n, 84, 84] for every n. Otherwise the
    channels are on the shorter of the first and the last axis; if both are equally long, on the last one.
    """
    first, middle, last = shape[-3:]
    if (first == middle) != (middle == last):
        return first == middle
    return last <= first


def image_layers(shape: Sequence[int], kind: str = "auto") -> Layers:
    """Build the layers from images [N, *shape] to features [N, F].

    Args:
        shape: [H, W, C] or [C, H, W], see :func:`channels_last`; or stacked images [n, H, W, C].
        kind: "nature", "small" or "impala"; "auto" is nature from 36 × 36 on, else small.

    Raises:
        UserError: not an image, or one that is too small for this kind.
    """
    last = len(shape) in (3, 4) and channels_last(shape)
    if not last and len(shape) != 3:
        expected = "a vector or an image, [H, W, channels] or [channels, H, W], or stacked ones [n, H, W, channels]"
        hint = "; --frame-stack takes images, not vectors" if len(shape) == 2 else ""
        raise UserError(f"observations: expected {expected}, got {list(shape)}{hint}")
    channels, height, width = (shape[-1], *shape[-3:-1]) if last else shape
    if len(shape) == 4:
        channels *= shape[0]
    if kind == "auto":
        kind = "nature" if min(height, width) >= NATURE_SIDE else "small"
    build, side = KINDS[kind]
    if min(height, width) < side:
        raise UserError(f"body: {kind}: expected images of at least {side} × {side}, got {list(shape)}")
    layers, features = build(channels, height, width)
    return [ChannelsFirst(), *layers] if last else layers, features


def encoder_features(encoder: nn.Module, shape: Sequence[int]) -> int:
    """Return the number of features F of an encoder that was passed in.

    Raises:
        UserError: it does not map observations [N, *shape] to [N, F].
    """
    try:
        with torch.no_grad(), evaluating(encoder.modules()):  # the zeros must not enter a batch norm's statistics
            out = encoder(torch.zeros(2, *shape))
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        found = str(error).partition("\n")[0]
    if not isinstance(found, list) or len(found) != 2 or found[0] != 2:
        raise UserError(f"encoder: expected features [2, F] from observations {[2, *shape]}, got {found}")
    return found[1]
