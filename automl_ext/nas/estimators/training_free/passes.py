"""Forward passes of an untrained network: batch norm uses the statistics of the batch, and the network is unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from automl_ext.nas.costs import forward_hooks


class NotScorableError(ValueError):
    """A score is not defined for a network: it has no ReLU, its outputs are not finite, or it ignores the images."""


def logits(network: nn.Module, images: Tensor) -> Tensor:
    """Compute the logits [N, classes] in training mode. The running statistics of batch norm do not change.

    Raises:
        NotScorableError: a logit is not finite.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with _training_mode(network):
        output = functional_call(network, buffers, (images,))
    if isinstance(output, tuple):  # the second output is that of an auxiliary head
        output = output[0]
    if not bool(output.isfinite().all()):
        raise NotScorableError("the network's outputs are not finite")
    return output


@contextmanager
def _training_mode(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Observation(NamedTuple):
    """Tensors recorded in one forward pass of an untrained network, from which several scores can be computed."""

    images: Tensor  # [N, C, H, W], a leaf of the graph of the logits
    logits: Tensor  # [N, classes], with a graph
    relus: list[Tensor]  # outputs [N, …] of all ReLUs, in order of execution
    convolutions: list[Tensor]  # outputs [C, H, W] of all convolutions for the first image


class _Recorder(TorchDispatchMode):
    """Records outputs of ReLUs and convolutions that run inside the context, whether as modules or as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.relus: list[Tensor] = []
        self.convolutions: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.relu_):
            self.relus.append(output.detach())
        elif func.overloadpacket is torch.ops.aten.convolution:
            self.convolutions.append(output[0].detach())
        return output


def observe(network: nn.Module, images: Tensor) -> Observation:
    """Run a network on a batch in training mode and record its features. The network does not change.

    Raises:
        NotScorableError: a logit is not finite.
    """
    images = images.detach().requires_grad_()
    with _Recorder() as recorded:
        output = logits(network, images)
    return Observation(images, output, recorded.relus, recorded.convolutions)


@torch.no_grad()
def block_features(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the feature maps [N, C, H, W] that the blocks of a network output, in order of execution.

    Raises:
        NotScorableError: a logit is not finite.
    """
    features: list[Tensor] = []

    def record(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            features.append(output)

    with forward_hooks(blocks(network), record):
        logits(network, images)
    return features


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Iterate over the blocks of a network: its children, where a list of modules is replaced by its members."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from blocks(child)
        elif not isinstance(child, nn.Identity):
            yield child
