"""Networks of cells that read the outputs of the two previous cells, as in NASNet, DARTS, GDAS and ReNAS.

A network is a stem, N cells at C channels, a reduction cell, N cells at 2C, a reduction cell, N cells at 4C, global
average pooling and a linear layer. N = 2 and N = 6 are the 8 and 20 layers of DARTS, with reductions at 1/3 and 2/3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.cell_genotype import Nodes
from automl_ext.nas.spaces.operations import FactorizedReduction, ReluConvBN, channels_last, make_operation


class Place(NamedTuple):
    """The position of a cell in the network: channels of its inputs, its own channels C, and reductions."""

    before_previous: int
    previous: int
    channels: int
    reduction: bool  # this cell halves the image: its operations on both inputs have stride 2
    previous_reduction: bool  # the previous cell halved the image: the first input is twice as large as the second


def adapt_inputs(place: Place, affine: bool = True) -> nn.ModuleList:
    """Make the modules that map both inputs to C channels and the same size."""
    if place.previous_reduction:
        first: nn.Module = FactorizedReduction(place.before_previous, place.channels, affine)
    else:
        first = ReluConvBN(place.before_previous, place.channels, 1, affine=affine)
    return nn.ModuleList([first, ReluConvBN(place.previous, place.channels, 1, affine=affine)])


class BlockCell(nn.Module):
    """The cell of one genotype: each node adds two operations on earlier states.

    Args:
        outputs: the states to concatenate; a path must lead from every node to one of them.
    """

    def __init__(self, nodes: Nodes, outputs: tuple[int, ...], place: Place) -> None:
        super().__init__()
        self.inputs = {edge.start for node in nodes for edge in node if edge.start < 2}
        self.starts = [[edge.start for edge in node] for node in nodes]
        self.outputs, self.out_channels = outputs, len(outputs) * place.channels
        adapt = adapt_inputs(place)
        self.adapt = nn.ModuleList(adapt[k] if k in self.inputs else nn.Identity() for k in range(2))
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                cast(nn.Module, make_operation(name, place.channels, stride=1 + (place.reduction and start < 2)))
                for name, start in node
            )
            for node in nodes
        )

    def forward(self, before_previous: Tensor, previous: Tensor) -> Tensor:
        states = [self.adapt[0](before_previous), self.adapt[1](previous)]
        for node, starts in zip(self.nodes, self.starts, strict=True):
            first, second = (
                operation(states[k]) for operation, k in zip(cast(nn.ModuleList, node), starts, strict=True)
            )
            states.append(first + second)
        return torch.cat([states[k] for k in self.outputs], dim=1)

    def paths(self) -> Iterator[nn.Module]:
        """Iterate over the operations that drop-path may drop, which are all except identities."""
        for node in self.nodes:
            yield from (op for op in cast(nn.ModuleList, node) if not isinstance(op, nn.Identity))


class FixedReductionCell(nn.Module):
    """GDAS's fixed reduction cell (Dong & Yang 2019, section 3.4, as in their code).

    Each input goes through two branches, which halve the image: convolutions 1×3 and 3×1 in groups, then 1×1; and a
    max pool. The four results are concatenated. The code has 8 groups; here there are gcd(C, 8), so that any C works.
    """

    def __init__(self, place: Place, affine: bool = True) -> None:
        super().__init__()
        c = place.channels
        self.inputs, self.out_channels = {0, 1}, 4 * c
        self.adapt = adapt_inputs(place, affine)
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(c, c, (1, 3), (1, 2), (0, 1), groups=gcd(c, 8), bias=False),
                nn.Conv2d(c, c, (3, 1), (2, 1), (1, 0), groups=gcd(c, 8), bias=False),
                nn.BatchNorm2d(c, affine=affine),
                nn.ReLU(),
                nn.Conv2d(c, c, 1, bias=False),
                nn.BatchNorm2d(c, affine=affine),
            )
            for _ in range(2)
        )
        self.pools = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(3, 2, padding=1), nn.BatchNorm2d(c, affine=affine)) for _ in range(2)
        )

    def forward(self, before_previous: Tensor, previous: Tensor, *_: object) -> Tensor:
        states = [self.adapt[0](before_previous), self.adapt[1](previous)]
        branches = [*self.convolutions, *self.pools]
        return torch.cat([branch(states[i % 2]) for i, branch in enumerate(branches)], dim=1)

    def paths(self) -> Iterator[nn.Module]:
        yield from self.convolutions
        yield from self.pools


class AuxiliaryHead(nn.Sequential):
    """DARTS's auxiliary classifier for training, with an average pool to 2 × 2 so that images of any size work."""

    def __init__(self, c_in: int, num_classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Conv2d(c_in, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, num_classes),
        )


class CellNetwork(nn.Module):
    """The network around the cells. Cells from which no path leads to the output are neither built nor run.

    Args:
        make_cell: place → cell. A cell has the attributes ``out_channels`` and ``inputs``, the subset of {0, 1} that
            it reads.
        channels: the number of channels C of states in the first stage.
        cells: the number of normal cells N per stage.

    Raises:
        ValueError: ``channels`` or ``cells`` is below 1.
    """

    def __init__(
        self, make_cell: Callable[[Place], nn.Module], in_channels: int, num_classes: int, channels: int, cells: int
    ) -> None:
        super().__init__()
        for name, value in [("channels", channels), ("cells", cells)]:
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        widths = [3 * channels, 3 * channels]  # channels of the outputs so far; the first cell reads the stem twice
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        )
        made: list[nn.Module] = []
        previous_reduction = False
        for i in range(3 * cells + 2):
            stage, place_in_stage = divmod(i + 1, cells + 1)
            reduction = place_in_stage == 0
            place = Place(widths[-2], widths[-1], channels << stage, reduction, previous_reduction)
            made.append(make_cell(place))
            widths.append(cast(int, made[-1].out_channels))
            previous_reduction = reduction
        self.live = live_cells([cast(set[int], cell.inputs) for cell in made])
        self.cells = nn.ModuleList(cell if i in self.live else nn.Identity() for i, cell in enumerate(made))
        self.classifier = nn.Linear(widths[-1], num_classes)
        self.auxiliary: nn.Module | None = None
        self.auxiliary_cell = max(i for i in self.live if i <= 2 * cells + 1)  # at 2/3 of the depth
        self.auxiliary_width = widths[2 + self.auxiliary_cell]

    def forward(self, x: Tensor, *choices: object) -> Tensor | tuple[Tensor, Tensor]:
        """Compute logits [N, num_classes] from images [N, in_channels, H, W].

        In training mode with an auxiliary head, return a pair: the logits and those of the auxiliary head.
        """
        x = channels_last(x)
        before_previous = previous = self.stem(x)
        auxiliary = None
        for i, cell in enumerate(self.cells):
            # No cell reads the output of a cell that is not live, so any tensor may stand in for it.
            output = cell(before_previous, previous, *choices) if i in self.live else previous
            before_previous, previous = previous, output
            if i == self.auxiliary_cell and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(output)
        logits = self.classifier(previous.mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)

    def add_auxiliary_head(self) -> None:
        """Add a second classifier at 2/3 of the depth, which runs in training mode only."""
        self.auxiliary = AuxiliaryHead(self.auxiliary_width, self.classifier.out_features)

    def paths(self) -> Iterator[nn.Module]:
        """Iterate over the operations that drop-path may drop."""
        for i in sorted(self.live):
            yield from self.cells[i].paths()  # type: ignore[operator]


def live_cells(inputs: list[set[int]]) -> set[int]:
    """Return the cells from which a path leads to the last one.

    Args:
        inputs: for each cell, which of the two previous outputs (0: before the previous, 1: previous) it reads.
    """
    live = {len(inputs) - 1}
    for i in reversed(range(len(inputs))):
        if i in live:
            live |= {i - 2 + k for k in inputs[i]}
    return {i for i in live if i >= 0}
