"""Net2Wider for networks of NAS-Bench-201; see :mod:`automl_ext.nas.estimators.morphisms`."""

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
    """Return a network with the same cells and function, with ``channels`` channels in the first stage.

    A node sums its inputs, and a residual block adds its shortcut. So one mapping from new to old channels widens all
    feature maps of a stage. The function is also preserved in training mode, because copies of a channel have the same
    batch statistics. There is no deeper counterpart: a cell cannot be made the identity in general, because pooling has
    no weights.

    Args:
        network: a network of :meth:`automl_ext.nas.spaces.nasbench201.NASBench201.build`; it is not modified.
        channels: new number of channels, at least the present one.
        noise: as in :func:`automl_ext.nas.estimators.morphisms.net2wider`.
        generator: as in :func:`automl_ext.nas.estimators.morphisms.net2wider`.

    Raises:
        ValueError: the network is of another kind, ``channels`` is too small, or ``noise`` is negative.
    """
    cells = [cell for stage in getattr(network, "stages", []) for cell in cast(nn.ModuleList, stage)]
    if not isinstance(network, Network) or not all(isinstance(cell, Cell) for cell in cells):
        raise ValueError(f"network: expected a network of NASBench201().build, got {type(network).__name__}")
    network = copy.deepcopy(network)
    stem, head = network.stem, network.head
    old = len(cast(nn.Conv2d, stem[0]).weight)
    if channels < old:
        raise ValueError(f"channels: expected at least {old}, the width of the network, got {channels}")
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
