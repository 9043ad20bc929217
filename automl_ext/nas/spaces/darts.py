"""The DARTS search space (Liu, Simonyan & Yang, ICLR 2019), also with GDAS's fixed reduction cell.

A network consists of normal cells and two reduction cells, which halve the image. A genotype has one cell of each kind
(:mod:`automl_ext.nas.spaces.darts_genotype`); there are about 10¹⁸ such pairs. With GDAS's fixed reduction cell (FRC),
a genotype has the normal cell only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from automl_ext.nas.spaces.cell_genotype import shorten
from automl_ext.nas.spaces.cell_network import BlockCell, CellNetwork, FixedReductionCell, Place
from automl_ext.nas.spaces.darts_genotype import (
    DECISIONS,
    NUM_NODES,
    OPERATIONS,
    PAIRS,
    DartsGenotype,
    decode_cell,
    encode_cell,
)
from automl_ext.nas.spaces.darts_supernet import DartsSupernet
from automl_ext.nas.spaces.space import DecisionSpace, check_indices
from automl_ext.nas.spaces.supernet import Form


@dataclass
class Darts(DecisionSpace):
    """The DARTS space, an :class:`automl_ext.nas.spaces.space.Space`.

    A cell has three decisions per node: the pair of its inputs and its two operations. The first node has only one
    possible pair, so it has no such decision. Every sequence of indices within ``num_choices`` encodes a genotype.
    Different sequences encode different networks. With N = ``cells`` normal cells per stage, a network has 3N + 2
    cells.
    """

    fixed_reduction: bool = False  # use GDAS's fixed reduction cell instead of searching for one
    num_choices: tuple[int, ...] = field(init=False, repr=False)
    kinds: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        decisions = DECISIONS if self.fixed_reduction else 2 * DECISIONS
        self.num_choices = tuple(n for _, _, n in decisions)
        self.kinds = tuple(kind for _, kind, _ in decisions)

    def parse(self, text: str) -> DartsGenotype:
        genotype = DartsGenotype.parse(text)
        if self.fixed_reduction != (genotype.reduction is None):
            expected = "reduction=fixed (space darts-frc)" if self.fixed_reduction else "a reduction cell (space darts)"
            raise ValueError(f"genotype: expected {expected}, got {shorten(text)!r}")
        return genotype

    def legal(self, genotype: DartsGenotype, decision: int) -> tuple[int, ...]:
        """Return the choices that ``decision`` may change to, as indices.

        For an operation, these are all others. For a pair of inputs, they are the pairs that share an input with it.
        """
        others = super().legal(genotype, decision)
        node, kind, _ = DECISIONS[decision % len(DECISIONS)]
        if kind == "operation":
            return others
        present = set(PAIRS[node][self.encode(genotype)[decision]])
        return tuple(k for k in others if present & set(PAIRS[node][k]))

    def encode(self, genotype: DartsGenotype) -> tuple[int, ...]:
        cells = [genotype.normal, *([] if genotype.reduction is None else [genotype.reduction])]
        return tuple(k for nodes in cells for k in encode_cell(nodes))

    def decode(self, indices: Sequence[int]) -> DartsGenotype:
        check_indices(indices, self.num_choices)
        normal = decode_cell(indices[: len(DECISIONS)])
        return DartsGenotype(normal, None if self.fixed_reduction else decode_cell(indices[len(DECISIONS) :]))

    def build(
        self, genotype: DartsGenotype, *, in_channels: int, num_classes: int, channels: int, cells: int
    ) -> CellNetwork:
        def make_cell(place: Place) -> nn.Module:
            nodes = genotype.reduction if place.reduction else genotype.normal
            if nodes is None:
                return FixedReductionCell(place)
            return BlockCell(nodes, tuple(range(2, 2 + NUM_NODES)), place)

        return CellNetwork(make_cell, in_channels, num_classes, channels, cells)

    def build_supernet(
        self, *, in_channels: int, num_classes: int, channels: int, cells: int, form: Form
    ) -> DartsSupernet:
        return DartsSupernet(self.fixed_reduction, in_channels, num_classes, channels, cells, form)

    def draw(self, genotype: DartsGenotype, path: str | Path, title: str = "") -> None:
        from automl_ext.nas.spaces.draw_cells import FIXED_REDUCTION, draw_cells

        reduction = FIXED_REDUCTION if genotype.reduction is None else genotype.reduction
        outputs = range(2, 2 + NUM_NODES)
        cells = {"normal cell": (genotype.normal, outputs), "reduction cell": (reduction, outputs)}
        draw_cells(cells, OPERATIONS, path, title)
