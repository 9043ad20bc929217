"""A supernet: all architectures of a space in one network, of which a pass runs only what has weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.operations import make_operation
from automl_ext.ops.mixed import cell_aggregate

# How the operations that did not run enter a node, which matters to the gradient of α only; see SuperCell.
Form = Literal["nb201", "darts"]


class Choice(NamedTuple):
    """Weights of the candidate operations of a cell, and which of them to run.

    One Choice serves all cells of a kind in a forward pass, so its indices leave the device once per step.
    """

    weights: Tensor  # [edges, operations]
    active: list[list[int]]  # for each edge the operations to run
    rest: Tensor | None = None  # [edges], the sum of the weights of what does not run: 0, with a gradient
    one_hot: bool = False  # whether what runs has exactly the weight 1

    @classmethod
    def hard(cls, weights: Tensor, index: Tensor) -> Choice:
        """One operation per edge; ``index`` [edges] is where the one-hot ``weights`` are 1."""
        rest = weights.sum(-1) - weights.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        return cls(weights, [[i] for i in index.tolist()], rest, one_hot=True)

    @classmethod
    def support(cls, weights: Tensor) -> Choice:
        """The operations of non-zero weight: all for softmax weights, a few for entmax weights."""
        return cls(weights, [[k for k, w in enumerate(row) if w != 0] for row in weights.tolist()])

    @classmethod
    def fixed(cls, indices: Sequence[int], num_operations: int, device: torch.device | str = "cpu") -> Choice:
        """Exactly the architecture ``indices``, without a gradient."""
        index = torch.tensor(indices, device=device)
        weights = torch.nn.functional.one_hot(index, num_operations).float()
        return cls(weights, [[i] for i in indices], one_hot=True)


class SuperCell(nn.Module):
    """A cell whose node i sums, over all nodes j < i, the weighted candidate operations of the edge j → i.

    Edges are ordered by their end, then by their start: 0→1, 0→2, 1→2, 0→3 …; the last node is the output.

    Args:
        operations: names of the candidates, the same on every edge.
        num_nodes: nodes, the input among them.
        form: what an operation i that did not run contributes to a node, besides nothing to its value:
            "nb201": its weight wᵢ, a constant over the feature map, as in the code of NAS-Bench-201. α then
            learns from all weights, of which the unchosen ones act like a bias.
            "darts": nothing, as in GDAS's code for the DARTS space; α learns from the weights of what ran.
    """

    def __init__(self, operations: Sequence[str], num_nodes: int, channels: int, form: Form) -> None:
        super().__init__()
        if form not in ("nb201", "darts"):
            raise ValueError(f'SuperCell: form: expected "nb201" or "darts", got {form!r}')
        self.num_nodes = num_nodes
        self.form = form
        self.edges = nn.ModuleList(
            # "none" is an Identity that is never called: it keeps indices aligned.
            nn.ModuleList(make_operation(name, channels, affine=False) or nn.Identity() for name in operations)
            for _ in range(num_nodes * (num_nodes - 1) // 2)
        )
        self.none = [k for k, name in enumerate(operations) if name == "none"]

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        active = self._reaching_output(choice.active)
        nodes = [x]
        for node in range(1, self.num_nodes):
            edges = edges_into(node)
            outputs = [self._run_edge(e, source, active[e]) for e, source in zip(edges, nodes, strict=True)]
            nodes.append(node_value(outputs, choice, edges, self.form, torch.zeros_like(x)))
        return nodes[-1]

    def _reaching_output(self, active: list[list[int]]) -> list[list[int]]:
        """What to run: no "none", and nothing that only "none" follows; neither changes a gradient."""
        running: list[list[int]] = [[] for _ in active]
        reaching = {self.num_nodes - 1}
        for node in range(self.num_nodes - 1, 0, -1):
            if node not in reaching:
                continue
            for start, e in enumerate(edges_into(node)):
                running[e] = [k for k in active[e] if k not in self.none]
                if running[e]:
                    reaching.add(start)
        return running

    def _run_edge(self, edge: int, x: Tensor, active: list[int]) -> list[Tensor | None]:
        candidates = cast(nn.ModuleList, self.edges[edge])
        outputs: list[Tensor | None] = [None] * len(candidates)
        for k in active:
            outputs[k] = candidates[k](x)
        return outputs


def node_value(
    outputs: Sequence[Sequence[Tensor | None]], choice: Choice, edges: range, form: Form, zero: Tensor
) -> Tensor:
    """The weighted sum over the operations that ran on a node's incoming edges; of ``zero``'s shape.

    Args:
        outputs: for each of the edges what ran (None: did not).
        edges: the rows of ``choice`` that they have.
        form: as of :class:`SuperCell`.
        zero: a tensor of zeros, the value when nothing ran.
    """
    weights = choice.weights[edges.start : edges.stop]
    ran = [y for edge in outputs for y in edge if y is not None]
    if not ran:
        value = zero + 0 * weights.sum()  # nothing to learn, but α stays in the graph
    elif choice.one_hot and not weights.requires_grad:
        value = sum(ran[1:], ran[0])  # as below, but the gradient is passed on, not copied for each
    else:
        value = cell_aggregate(outputs, weights)
    if form == "nb201" and choice.rest is not None and choice.rest.requires_grad:
        value = value + choice.rest[edges.start : edges.stop].sum()
    return value


def edges_into(node: int) -> range:
    """The edges from nodes 0 … node − 1, in this order."""
    first = node * (node - 1) // 2
    return range(first, first + node)


class Supernet(nn.Module):
    """A network over SuperCells and the architecture parameters α of its cells.

    Args:
        network: called as ``network(x, *choices)``, one Choice for each kind of cell.
        alpha_shapes: (edges, operations) of each kind of cell.

    Attributes:
        operations: names of the candidates, for the watch of skip connections; a class of its own sets it.
    """

    operations: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, alpha_shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.network = network
        self.alphas = nn.ParameterList(nn.Parameter(1e-3 * torch.randn(shape)) for shape in alpha_shapes)

    def forward(self, x: Tensor, *choices: Choice) -> Tensor:
        return self.network(x, *choices)

    def weights(self) -> Iterator[nn.Parameter]:
        """All parameters but α."""
        return self.network.parameters()

    def argmax(self) -> list[Choice]:
        """The operation of the largest α on every edge."""
        return [Choice.fixed(a.argmax(-1).tolist(), a.shape[1], a.device) for a in self.alphas]

    def derive(self) -> Any:
        """The genotype α stands for."""
        raise NotImplementedError


@torch.no_grad()
def recalibrate(supernet: Supernet, images: Tensor, choices: list[Choice]) -> None:
    """Recompute the batch norm statistics of a supernet for one architecture.

    During a search the running statistics average over all architectures that were sampled.

    Args:
        images: training images [N, C, H, W].
        choices: the architecture.
    """
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a cumulative average over the following batches
    supernet.train()
    for batch in images.split(500):
        supernet(batch, *choices)
