"""The block search space of ReNAS (Chen et al., CVPR 2019): NASNet's space (Zoph et al., CVPR 2018) with one cell.

A cell has five blocks. A block is the sum of two operations, each on any earlier state: an output of the two previous
cells or an earlier block. The blocks that no other block reads are concatenated.

Two choices are ours, because the paper does not state them. The operations are the eight of regularized evolution
(Real et al., AAAI 2019), whose space is the most similar. The reduction cell is the normal cell, with stride 2 in the
operations on the cell's inputs. A genotype is thus one cell, as the mutation controller expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automl_ext.nas.spaces.cell_genotype import Edge, Nodes, check_nodes, read_nodes, write_nodes
from automl_ext.nas.spaces.cell_network import BlockCell, CellNetwork
from automl_ext.nas.spaces.draw_cells import draw_cells
from automl_ext.nas.spaces.space import DecisionSpace, check_indices
from automl_ext.nas.spaces.supernet import Form, Supernet
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

OPERATIONS = (
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "conv_1x7_7x1",
    "avg_pool_3x3",
    "max_pool_3x3",
)
NUM_BLOCKS = 5


@dataclass(frozen=True)
class ReNASGenotype:
    """A cell of five blocks, each with two operations."""

    blocks: Nodes

    def __post_init__(self) -> None:
        check_nodes(self.blocks, NUM_BLOCKS, OPERATIONS)

    def __str__(self) -> str:
        """Write five blocks: ``|op~0|op~1|+|op~0|op~2|+…``."""
        return write_nodes(self.blocks)


def unused(blocks: Nodes) -> tuple[int, ...]:
    """Return the output states of the cell: the blocks that no other block reads (state 2 + i is block i)."""
    read = {edge.start for block in blocks for edge in block}
    return tuple(state for state in range(2, 2 + len(blocks)) if state not in read)


class ReNASSpace(DecisionSpace):
    """The ReNAS space, an :class:`automl_ext.nas.spaces.space.Space`.

    Each block has four decisions: an operation and its input, twice. Any indices within ``num_choices`` encode a
    genotype. Exchanging the two halves of a block gives another genotype of the same network. With ``cells`` = N per
    stage, a network has 3N + 2 cells.
    """

    num_choices = tuple(n for i in range(NUM_BLOCKS) for n in (len(OPERATIONS), 2 + i) * 2)
    kinds = ("operation", "input") * (2 * NUM_BLOCKS)

    def parse(self, text: str) -> ReNASGenotype:
        try:
            return ReNASGenotype(read_nodes(text.strip()))
        except ValueError as error:
            raise ValueError(
                f"genotype: expected a ReNAS cell of five blocks |op~i|op~j|+…, got {short(text)}: {short(error)}"
            ) from None

    def encode(self, genotype: ReNASGenotype) -> tuple[int, ...]:
        return tuple(k for block in genotype.blocks for name, start in block for k in (OPERATIONS.index(name), start))

    def decode(self, indices: Sequence[int]) -> ReNASGenotype:
        check_indices(indices, self.num_choices)
        edges = [Edge(OPERATIONS[indices[k]], indices[k + 1]) for k in range(0, len(indices), 2)]
        return ReNASGenotype(tuple((edges[k], edges[k + 1]) for k in range(0, len(edges), 2)))

    def build(
        self, genotype: ReNASGenotype, *, in_channels: int, num_classes: int, channels: int, cells: int
    ) -> CellNetwork:
        blocks = genotype.blocks
        return CellNetwork(
            lambda place: BlockCell(blocks, unused(blocks), place), in_channels, num_classes, channels, cells
        )

    def build_supernet(self, *, in_channels: int, num_classes: int, channels: int, cells: int, form: Form) -> Supernet:
        """Raise UserError: the width of a cell depends on which blocks are read, so its weights cannot be shared."""
        raise UserError("space renas: has no supernet; search it with rea or renas, or search darts with gdas")

    def draw(self, genotype: ReNASGenotype, path: str | Path, title: str = "") -> None:
        draw_cells({"cell": (genotype.blocks, unused(genotype.blocks))}, OPERATIONS, path, title)
