"""The NAS-Bench-201 search space (Dong & Yang, ICLR 2020; the topology space of NATS-Bench).

A cell has 4 nodes and 6 edges. Each edge has one of 5 operations, which makes 15,625 cells. A node is the sum of its
incoming edges; the last node is the output. A network has a stem and three stages of N cells at C, 2C and 4C channels,
with residual downsampling blocks between them. Batch norm, ReLU, global average pooling and a linear layer follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.draw import draw_graph
from automl_ext.nas.spaces.operations import ResidualBlock, channels_last, make_operation
from automl_ext.nas.spaces.space import DecisionSpace, check_indices
from automl_ext.nas.spaces.supernet import Form, SuperCell, Supernet
from automl_ext.training.files.reading import short

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NUM_NODES = 4


@dataclass(frozen=True)
class Genotype:
    """A cell: the operations of the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3."""

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.operations) != len(EDGES):
            raise ValueError(f"genotype: expected {len(EDGES)} operations, got {len(self.operations)}")
        for name in self.operations:
            if name not in OPERATIONS:
                raise ValueError(f"genotype: expected operations among {', '.join(OPERATIONS)}, got {name!r}")

    def __str__(self) -> str:
        """Write the cell as the benchmark does: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        nodes = [
            "".join(f"|{op}~{j}" for op, (j, i) in zip(self.operations, EDGES, strict=True) if i == node) + "|"
            for node in range(1, NUM_NODES)
        ]
        return "+".join(nodes)

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Parse a genotype; the inverse of ``str``.

        Raises:
            ValueError: ``text`` is not a NAS-Bench-201 cell.
        """
        tokens = [token for node in text.strip().split("+") for token in node.strip("|").split("|")]
        try:
            genotype = cls(tuple(token.partition("~")[0] for token in tokens))
        except ValueError as error:
            raise ValueError(f"{_not_a_cell(text)}: {error}") from None
        if str(genotype) != text.strip():
            raise ValueError(f"{_not_a_cell(text)}; did you mean {genotype}?")
        return genotype


def _not_a_cell(text: str) -> str:
    return f"genotype: expected a NAS-Bench-201 cell |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got {short(text)}"


class Cell(nn.Module):
    """The cell of one genotype: [N, channels, H, W] → the same shape.

    Operations from which no path leads to the output are built, because the benchmark counts their parameters, but they
    do not run.
    """

    def __init__(self, genotype: Genotype, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(make_operation(name, channels) or nn.Identity() for name in genotype.operations)
        self.live = live_edges(genotype)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for node in range(1, NUM_NODES):
            incoming = [self.edges[e](nodes[EDGES[e][0]]) for e in self.live if EDGES[e][1] == node]
            nodes.append(sum(incoming[1:], incoming[0]) if incoming else torch.zeros_like(x))
        return nodes[-1]

    def paths(self) -> Iterator[nn.Module]:
        """Iterate over the operations that drop-path may drop: all that run, except identities."""
        yield from (self.edges[e] for e in self.live if not isinstance(self.edges[e], nn.Identity))


def live_edges(genotype: Genotype) -> list[int]:
    """Return the indices of the edges, without "none", from which a path leads to the output."""
    reaching = {NUM_NODES - 1}
    live = []
    for e in reversed(range(len(EDGES))):  # the edges are ordered by their end node
        start, end = EDGES[e]
        if genotype.operations[e] != "none" and end in reaching:
            reaching.add(start)
            live.append(e)
    return live[::-1]


class Network(nn.Module):
    """The network around the cells of NAS-Bench-201: stem, three stages of N cells, classifier.

    ``forward`` passes its arguments after the images to every cell.

    Args:
        make_cell: number of channels → cell.
        channels: the number of channels C of the first stage.
        cells: the number of cells N per stage.

    Raises:
        ValueError: ``channels`` or ``cells`` is below 1.
    """

    def __init__(
        self,
        make_cell: Callable[[int], nn.Module],
        in_channels: int,
        num_classes: int,
        channels: int,
        cells: int,
    ) -> None:
        super().__init__()
        for name, value in [("channels", channels), ("cells", cells)]:
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        widths = [channels, 2 * channels, 4 * channels]
        self.stages = nn.ModuleList(nn.ModuleList(make_cell(width) for _ in range(cells)) for width in widths)
        self.reductions = nn.ModuleList([nn.Identity(), *(ResidualBlock(a, b) for a, b in pairwise(widths))])
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], num_classes),
        )

    def forward(self, x: Tensor, *cell_arguments: Any) -> Tensor:
        """Compute logits [N, num_classes] from images [N, in_channels, H, W]."""
        x = self.stem(channels_last(x))
        for reduction, stage in zip(self.reductions, self.stages, strict=True):
            x = reduction(x)
            for cell in cast(nn.ModuleList, stage):
                x = cell(x, *cell_arguments)
        return self.head(x)

    def paths(self) -> Iterator[nn.Module]:
        """Iterate over the operations that drop-path may drop."""
        for stage in self.stages:
            for cell in cast(nn.ModuleList, stage):
                yield from cell.paths()  # type: ignore[operator]


class NASBench201Supernet(Supernet):
    """The supernet of NAS-Bench-201; ``alphas[0]`` has the shape [6 edges, 5 operations]."""

    operations = OPERATIONS

    def __init__(self, in_channels: int, num_classes: int, channels: int, cells: int, form: Form) -> None:
        def make_cell(width: int) -> nn.Module:
            return SuperCell(OPERATIONS, NUM_NODES, width, form)

        network = Network(make_cell, in_channels, num_classes, channels, cells)
        super().__init__(network, [(len(EDGES), len(OPERATIONS))])

    def derive(self) -> Genotype:
        """Return the cell that has the operation with the largest α on every edge."""
        return Genotype(tuple(OPERATIONS[k] for k in self.alphas[0].argmax(-1).tolist()))


class NASBench201(DecisionSpace):
    """The NAS-Bench-201 space, an :class:`automl_ext.nas.spaces.space.Space` with one decision per edge."""

    num_choices = (len(OPERATIONS),) * len(EDGES)
    kinds = ("operation",) * len(EDGES)

    def parse(self, text: str) -> Genotype:
        return Genotype.parse(text)

    def encode(self, genotype: Genotype) -> tuple[int, ...]:
        return tuple(OPERATIONS.index(name) for name in genotype.operations)

    def decode(self, indices: Sequence[int]) -> Genotype:
        check_indices(indices, self.num_choices)
        return Genotype(tuple(OPERATIONS[k] for k in indices))

    def build(self, genotype: Genotype, *, in_channels: int, num_classes: int, channels: int, cells: int) -> Network:
        return Network(lambda c: Cell(genotype, c), in_channels, num_classes, channels, cells)

    def build_supernet(
        self, *, in_channels: int, num_classes: int, channels: int, cells: int, form: Form
    ) -> NASBench201Supernet:
        return NASBench201Supernet(in_channels, num_classes, channels, cells, form)

    def draw(self, genotype: Genotype, path: str | Path, title: str = "") -> None:
        draw_graph(*self.graph(genotype), OPERATIONS, path, title)

    def graph(self, genotype: Genotype) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str, str]]]:
        """Return the positions of the nodes and the labeled edges, as :func:`draw_graph` takes them."""
        # At these positions the six edges do not cross, so their labels do not overlap.
        nodes = {"input": (0.0, 0.0), "node 1": (5.0, 5.2), "node 2": (5.0, 2.0), "output": (10.0, 0.0)}
        names = list(nodes)
        edges = [
            (names[start], names[end], operation)
            for (start, end), operation in zip(EDGES, genotype.operations, strict=True)
        ]
        return nodes, edges
