"""The largest architecture of a search space: the baseline that needs no search."""

from __future__ import annotations

from itertools import cycle
from random import Random
from typing import Any

import torch

from automl_ext.nas.spaces.space import Space


def largest(space: Space[Any], channels: int = 4) -> Any:
    """Return the architecture with the most parameters that coordinate ascent finds.

    The ascent starts from a random architecture. It sets one decision at a time to the choice with the most parameters,
    and ends when no change of a single decision adds parameters. In NAS-Bench-201 the result is a 3×3 convolution on
    every edge. The result does not depend on the data.

    Args:
        space: the search space.
        channels: number of channels of the networks that are counted.
    """

    def parameters(genotype: Any) -> int:
        with torch.device("meta"):
            network = space.build(genotype, in_channels=3, num_classes=10, channels=channels, cells=1)
        return sum(p.numel() for p in network.parameters())

    best = space.random(Random(0))
    size, decisions = parameters(best), len(space.num_choices)
    unchanged = 0  # number of decisions in a row without a better choice
    for decision in cycle(range(decisions)):
        if unchanged == decisions:
            break
        before = size
        for choice in space.legal(best, decision):
            indices = list(space.encode(best))
            if indices[decision] == choice:
                continue
            indices[decision] = choice
            other = space.decode(indices)
            if (count := parameters(other)) > size:
                best, size = other, count
        unchanged = unchanged + 1 if size == before else 0
    return best
