"""Regularization of the final training in DARTS: cutout, drop-path and an auxiliary head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.training import ranks
from automl_ext.training.errors import UserError


def cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Set a ``size`` × ``size`` square of each image to zero (DeVries & Taylor 2017).

    Centers are uniform over the pixels; the part of a square outside of the image has no effect.

    Args:
        images: [N, C, H, W], normalized, so that 0 is the mean.
        size: the side of the square in pixels.
        generator: a generator on the CPU.
    """
    if not size:
        return images
    n, _, h, w = images.shape
    inside = []
    for length in (h, w):
        start = torch.randint(length, (n, 1), generator=generator) - size // 2
        place = torch.arange(length)
        inside.append((place >= start) & (place < start + size))
    square = inside[0][:, :, None] & inside[1][:, None, :]
    return images.masked_fill(square[:, None].to(images.device), 0.0)


class DropPath:
    """Drop-path: set outputs of operations to zero per image, with a probability (Larsson et al., ICLR 2017).

    The outputs that remain are scaled by 1/(1 − probability), as in NASNet and DARTS. Forward hooks on the operations
    of ``network.paths()`` do this, so the network's structure, state and export do not change.

    Args:
        generator: a generator on the CPU, so that a seed drops the same outputs on every device.

    Attributes:
        probability: the present drop probability, initially 0.
        images: size of the present batch, of which a rank's network sees a part; None: as many as the network sees.

    Raises:
        UserError: the network has no method ``paths``.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        if not hasattr(network, "paths"):
            raise UserError("--drop-path: networks of this space have no method paths, so drop-path is not supported")
        self.generator, self.probability = generator, 0.0
        self.images: int | None = None
        for operation in network.paths():  # type: ignore[operator]
            operation.register_forward_hook(self._drop)

    def _drop(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not module.training or not self.probability:
            return output
        keep = 1 - self.probability
        images = len(output) if self.images is None else self.images
        kept = (torch.rand(images, generator=self.generator) < keep)[ranks.part(images)]
        return output * (kept / keep).to(output)[:, None, None, None]


def add_auxiliary_head(network: nn.Module) -> None:
    """Add the auxiliary head to a network.

    Raises:
        UserError: networks of the space do not have one.
    """
    if not hasattr(network, "add_auxiliary_head"):
        raise UserError("--auxiliary: networks of this space have no auxiliary head")
    network.add_auxiliary_head()  # type: ignore[operator]
