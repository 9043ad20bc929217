"""Net2Wider for a whole network of NAS-Bench-201: see :mod:`automl_ext.nas.estimators.morphisms`."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.morphisms import draw_mapping, widen_batch_norm, widen_input, widen_output
from automl_ext.nas.spaces.nasbench201 import Cell, Network
from automl_ext.nas.spaces.operations import ResidualBlock


def widen_cells(
    network: Network, channels: int, *, noise: float = 0.0, generator: torch.Generator | None = None
) -> Network:
    """A network of the same cells with ``channels`` in its first stage, that computes what ``network`` does.

    A node sums what enters it and a block adds its shortcut, so all feature maps of a stage are widened by one mapping
    from new channels to old ones. That holds in training mode too: copies of a channel have its batch statistics.

    A deeper one there is not: what a cell passes on cannot be made the identity in general (a pooling has no weights).

    Args:
        network: of :meth:`automl_ext.nas.spaces.nasbench201.NASBench201.build`; it is left as it is.
        channels: no fewer than before.
        noise, generator: as in :func:`automl_ext.nas.estimators.morphisms.net2wider`.

    Raises:
        ValueError: another kind of network, ``channels`` too few or ``noise`` negative.
    """
    cells = [cell for stage in getattr(network, "stages", []) for cell in cast(nn.ModuleList, stage)]
    if not isinstance(network, Network) or not all(isinstance(cell, Cell) for cell in cells):
        raise ValueError(f"network: expected one that NASBench201().build made, got {type(network).__name__}")
    network = copy.deepcopy(network)
    stem, head = network.stem, network.head
    old = len(cast(nn.Conv2d, stem[0]).weight)
    if channels < old:
        raise ValueError(f"channels: expected at least {old}, as many as the network has, got {channels}")
    if not noise >= 0:
        raise ValueError(f"noise: expected at least 0, got {noise}")

    def widen(module: nn.Module, inputs: Tensor | None, outputs: Tensor) -> None:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                if inputs is not None:
                    widen_input(part, inputs)
                widen_output(part, outputs, noise, generator)
            elif isinstance(part, nn.BatchNorm2d):
                widen_batch_norm(part, outputs)

    before, mapping = None, draw_mapping(old, channels, generator)
    widen(stem, before, mapping)
    for i, (reduction, stage) in enumerate(zip(network.reductions, network.stages, strict=True)):
        if isinstance(reduction, ResidualBlock):
            before, mapping = mapping, draw_mapping(2**i * old, 2**i * channels, generator)
            widen(reduction.shortcut, before, mapping)
            widen(reduction.branch[0], before, mapping)
            widen(reduction.branch[1], mapping, mapping)
        widen(stage, mapping, mapping)
    widen_batch_norm(cast(nn.BatchNorm2d, head[0]), mapping)
    widen_input(cast(nn.Linear, head[-1]), mapping)
    return network
