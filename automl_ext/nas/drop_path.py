"""Drop-path: training drops whole operations of a cell (Larsson et al., ICLR 2017; as in NASNet and DARTS)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.training.errors import UserError


class DropPath:
    """Drops, per image and with ``probability``, what the operations in ``network.paths()`` give; scales up the others.

    A hook on each of them: the network, its state and its export stay as they are.

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
