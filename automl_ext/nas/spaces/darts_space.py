"""The DARTS search space (Liu, Simonyan & Yang, ICLR 2019), also with GDAS's fixed reduction cell.

A network consists of normal cells and two reduction cells, which halve the image. A genotype has one cell of each kind.
A cell has two inputs, the outputs of the two previous cells, and four nodes. Each node adds two operations on two
different earlier states; "none" is excluded. The four nodes are concatenated. There are about 10⁹ such cells, and 10¹⁸
pairs. With GDAS's fixed reduction cell (FRC), a genotype has the normal cell only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.cell_genotype import Edge, Nodes, check_nodes, read_nodes, write_nodes
from automl_ext.nas.spaces.cell_network import BlockCell, CellNetwork, FixedReductionCell, Place, adapt_inputs
from automl_ext.nas.spaces.draw_cells import FIXED_REDUCTION, draw_cells
from automl_ext.nas.spaces.space import DecisionSpace, check_indices
from automl_ext.nas.spaces.supernet import Choice, Form, SuperEdge, Supernet, node_value
from automl_ext.training.files.reading import short

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
NUM_EDGES = sum(2 + i for i in range(NUM_NODES))  # 14
NONE = OPERATIONS.index("none")


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


def edges_of(node: int) -> range:
    """Return the edges into a node, from the states 0 … 1 + node, in this order."""
    first = node * (node + 3) // 2
    return range(first, first + 2 + node)


class DartsSuperCell(nn.Module):
    """A cell in which each node adds the weighted candidate operations of the edges from all earlier states."""

    def __init__(self, place: Place, form: Form) -> None:
        super().__init__()
        if form not in ("nb201", "darts"):
            raise ValueError(f'DartsSuperCell: form: expected "nb201" or "darts", got {form!r}')
        self.inputs, self.out_channels = {0, 1}, NUM_NODES * place.channels
        self.form, self.kind = form, int(place.reduction)
        self.adapt = adapt_inputs(place, affine=False)
        self.edges = nn.ModuleList(
            SuperEdge(OPERATIONS, place.channels, stride=1 + (place.reduction and start < 2))
            for node in range(NUM_NODES)
            for start in range(2 + node)
        )

    def forward(self, before_previous: Tensor, previous: Tensor, *choices: Choice) -> Tensor:
        choice = choices[self.kind]
        states = [self.adapt[0](before_previous), self.adapt[1](previous)]
        n, c, h, w = states[1].shape
        zero = states[1].new_zeros((n, c, -(-h // 2), -(-w // 2)) if self.kind else (n, c, h, w))
        for node in range(NUM_NODES):
            edges = edges_of(node)
            active = [[k for k in choice.active[e] if k != NONE] for e in edges]
            outputs = [self.edges[e](x, ran) for e, x, ran in zip(edges, states, active, strict=True)]
            states.append(node_value(outputs, choice, edges, self.form, zero))
        return torch.cat(states[2:], dim=1)


class DartsSupernet(Supernet):
    """The supernet of the DARTS space.

    α has the shape [14 edges, 8 operations], once for the normal and, unless it is fixed, once for the reduction cells.
    """

    operations = OPERATIONS
    nodes = tuple(edges_of(node) for node in range(NUM_NODES))
    inputs = 2

    def __init__(
        self,
        fixed_reduction: bool,
        in_channels: int,
        num_classes: int,
        channels: int,
        cells: int,
        form: Form,
    ) -> None:
        def make_cell(place: Place) -> nn.Module:
            if place.reduction and fixed_reduction:
                return FixedReductionCell(place, affine=False)
            return DartsSuperCell(place, form)

        network = CellNetwork(make_cell, in_channels, num_classes, channels, cells)
        super().__init__(network, [(NUM_EDGES, len(OPERATIONS))] * (1 if fixed_reduction else 2))

    def derive(self) -> DartsGenotype:
        """Keep the two strongest edges of every node, each with its strongest operation except "none"."""
        cells = [strongest(alpha) for alpha in self.alphas]
        return DartsGenotype(cells[0], cells[1] if len(cells) > 1 else None)

    def argmax(self) -> list[Choice]:
        return self.choices(self.derive())

    def choices(self, genotype: DartsGenotype) -> list[Choice]:
        """Return the Choices that run ``genotype``: "none" on the edges that it does not have."""
        cells = [genotype.normal, *([] if genotype.reduction is None else [genotype.reduction])]
        return [
            Choice.fixed(edge_operations(cell), len(OPERATIONS), alpha.device)
            for cell, alpha in zip(cells, self.alphas, strict=True)
        ]


def strongest(alpha: Tensor) -> Nodes:
    """Derive the cell from α [14 edges, 8 operations] (Liu et al. 2019, section 2.4).

    The strength of an edge is the largest softmax weight of its operations except "none"; the softmax includes "none".
    """
    weights = torch.softmax(alpha.detach(), dim=-1)
    weights[:, NONE] = -1.0
    strength, operation = (x.tolist() for x in weights.max(dim=-1))
    nodes = []
    for node in range(NUM_NODES):
        edges = edges_of(node)
        chosen = sorted(sorted(edges, key=lambda e: -strength[e])[:2])
        nodes.append(tuple(Edge(OPERATIONS[operation[e]], e - edges.start) for e in chosen))
    return tuple(nodes)


def edge_operations(nodes: Nodes) -> list[int]:
    """Return the index of the operation on each of the 14 edges."""
    indices = [NONE] * NUM_EDGES
    for i, node in enumerate(nodes):
        for name, start in node:
            indices[edges_of(i)[start]] = OPERATIONS.index(name)
    return indices


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
        pairs = [part.partition("=")[::2] for part in text.split()]
        cells = dict(pairs)
        try:
            if len(pairs) != 2 or cells.keys() != {"normal", "reduction"}:
                raise ValueError("expected normal=… and reduction=…, once each, separated by a space")
            reduction = None if cells["reduction"] == "fixed" else read_nodes(cells["reduction"])
            genotype = DartsGenotype(read_nodes(cells["normal"]), reduction)
        except ValueError as error:
            raise ValueError(
                f"genotype: expected DARTS cells normal=|op~0|op~1|+… reduction=|op~0|op~1|+…, "
                f"got {short(text)}: {short(error)}"
            ) from None
        if self.fixed_reduction != (genotype.reduction is None):
            expected = "reduction=fixed (space darts-frc)" if self.fixed_reduction else "a reduction cell (space darts)"
            raise ValueError(f"genotype: expected {expected}, got {short(text)}")
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
        reduction = FIXED_REDUCTION if genotype.reduction is None else genotype.reduction
        outputs = range(2, 2 + NUM_NODES)
        cells = {"normal cell": (genotype.normal, outputs), "reduction cell": (reduction, outputs)}
        draw_cells(cells, OPERATIONS, path, title)
