"""What DARTS adds to the final training of a network: cutout, drop-path and an auxiliary head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.training.errors import UserError


def cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Zero a ``size`` × ``size`` square of every image, the part of it that lies inside (DeVries & Taylor 2017).

    Args:
        images: [N, C, H, W], normalised, so that 0 is the mean.
        generator: on the CPU; centres are uniform over the pixels.
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
    """Drops, per image and with ``probability``, what operations in ``network.paths()`` give; scales up the others.

    Larsson et al., ICLR 2017, as in NASNet and DARTS. A hook on each: network, state and export stay as they are.

    Args:
        generator: on the CPU, so that equal seeds drop alike on every device.

    Raises:
        UserError: the network names no paths.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        if not hasattr(network, "paths"):
            raise UserError("--drop-path: networks of this space name no paths to drop")
        self.generator, self.probability = generator, 0.0
        for operation in network.paths():  # type: ignore[operator]
            operation.register_forward_hook(self._drop)

    def _drop(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not module.training or not self.probability:
            return output
        keep = 1 - self.probability
        kept = torch.rand(len(output), generator=self.generator) < keep
        return output * (kept / keep).to(output)[:, None, None, None]


def add_auxiliary_head(network: nn.Module) -> None:
    """UserError where networks of the space offer none."""
    if not hasattr(network, "add_auxiliary_head"):
        raise UserError("--auxiliary: networks of this space have no auxiliary head")
    network.add_auxiliary_head()  # type: ignore[operator]
