"""The supernet of the DARTS space: all operations on every edge; a forward pass runs those with non-zero weight."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.cell_genotype import Edge, Nodes
from automl_ext.nas.spaces.cell_network import CellNetwork, FixedReductionCell, Place, adapt_inputs
from automl_ext.nas.spaces.darts_genotype import NUM_NODES, OPERATIONS, DartsGenotype
from automl_ext.nas.spaces.operations import make_operation
from automl_ext.nas.spaces.supernet import Choice, Form, Supernet, node_value

NUM_EDGES = sum(2 + i for i in range(NUM_NODES))  # 14
NONE = OPERATIONS.index("none")


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
            # "none" is an Identity that is never called; it keeps the indices aligned.
            nn.ModuleList(
                make_operation(name, place.channels, affine=False, stride=1 + (place.reduction and start < 2))
                or nn.Identity()
                for name in OPERATIONS
            )
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
            outputs = [self._run_edge(e, x, choice.active[e]) for e, x in zip(edges, states, strict=True)]
            states.append(node_value(outputs, choice, edges, self.form, zero))
        return torch.cat(states[2:], dim=1)

    def _run_edge(self, edge: int, x: Tensor, active: list[int]) -> list[Tensor | None]:
        candidates = cast(nn.ModuleList, self.edges[edge])
        outputs: list[Tensor | None] = [None] * len(candidates)
        for k in active:
            if k != NONE:
                outputs[k] = candidates[k](x)
        return outputs


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
