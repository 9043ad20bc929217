"""The genotypes of the DARTS search space (Liu, Simonyan & Yang, ICLR 2019), and their encoding as indices.

A cell has two inputs, the outputs of the two previous cells, and four nodes. Each node adds two operations on two
different earlier states; "none" is excluded. The four nodes are concatenated. There are about 10⁹ such cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from automl_ext.nas.spaces.cell_genotype import Edge, Nodes, check_nodes, read_nodes, shorten, write_nodes

OPERATIONS = (
    "none",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
CHOSEN = OPERATIONS[1:]  # the operations that a genotype may contain
NUM_NODES = 4
PAIRS = [tuple(combinations(range(2 + i), 2)) for i in range(NUM_NODES)]  # possible inputs of each node
# The decisions of a cell, as (node, kind, number of choices): the pair of inputs, then the two operations. The first
# node has only one possible pair.
DECISIONS = tuple(
    (i, kind, n)
    for i, pairs in enumerate(PAIRS)
    for kind, n in (("input", len(pairs)), ("operation", len(CHOSEN)), ("operation", len(CHOSEN)))
    if n > 1
)


@dataclass(frozen=True)
class DartsGenotype:
    """A normal cell and a reduction cell (None: GDAS's fixed reduction cell).

    The inputs of each node are in ascending order.
    """

    normal: Nodes
    reduction: Nodes | None

    def __post_init__(self) -> None:
        for nodes in (self.normal, self.reduction):
            if nodes is not None:
                check_nodes(nodes, NUM_NODES, CHOSEN)
                for i, (first, second) in enumerate(nodes):
                    if not first.start < second.start:
                        raise ValueError(
                            f"node {i}: expected two inputs in ascending order, got {first.start} and {second.start}"
                        )

    def __str__(self) -> str:
        """Write ``normal=|op~0|op~1|+|op~0|op~2|+|…|+|…| reduction=|…|``, or ``reduction=fixed``."""
        reduction = "fixed" if self.reduction is None else write_nodes(self.reduction)
        return f"normal={write_nodes(self.normal)} reduction={reduction}"

    @classmethod
    def parse(cls, text: str) -> DartsGenotype:
        """Parse a genotype; the inverse of ``str``.

        Raises:
            ValueError: ``text`` is not a pair of DARTS cells.
        """
        pairs = [part.partition("=")[::2] for part in text.split()]
        cells = dict(pairs)
        try:
            if len(pairs) != 2 or cells.keys() != {"normal", "reduction"}:
                raise ValueError("expected normal=… and reduction=…, once each, separated by a space")
            reduction = cells["reduction"]
            return cls(read_nodes(cells["normal"]), None if reduction == "fixed" else read_nodes(reduction))
        except ValueError as error:
            raise ValueError(
                f"genotype: expected DARTS cells normal=|op~0|op~1|+… reduction=|op~0|op~1|+…, "
                f"got {shorten(text)!r}: {shorten(str(error), 400)}"
            ) from None


def encode_cell(nodes: Nodes) -> list[int]:
    """Return the indices of a cell's decisions."""
    indices = []
    for pairs, (first, second) in zip(PAIRS, nodes, strict=True):
        pair = [pairs.index((first.start, second.start))] if len(pairs) > 1 else []
        indices += [*pair, CHOSEN.index(first.operation), CHOSEN.index(second.operation)]
    return indices


def decode_cell(indices: Sequence[int]) -> Nodes:
    """Return the cell with these indices; the inverse of :func:`encode_cell`."""
    rest = iter(indices)
    nodes = []
    for pairs in PAIRS:
        first, second = pairs[next(rest)] if len(pairs) > 1 else pairs[0]
        nodes.append((Edge(CHOSEN[next(rest)], first), Edge(CHOSEN[next(rest)], second)))
    return tuple(nodes)
