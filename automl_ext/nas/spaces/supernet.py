"""A supernet: one network with all operations of a space, of which a forward pass runs those with non-zero weight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.operations import make_operation
from automl_ext.ops.mixed import cell_aggregate
from automl_ext.training.machine.device import send

# How operations that did not run enter a node. It affects only the gradient of α; see SuperCell.
Form = Literal["nb201", "darts"]
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # the second one on several GPUs


class Choice(NamedTuple):
    """Weights of a cell's candidate operations, and which of them to run.

    All cells of a kind share one Choice per forward pass, so the indices are copied from the device once per step.
    """

    weights: Tensor  # [edges, operations]
    active: list[list[int]]  # the operations to run on each edge
    rest: Tensor | None = None  # [edges], sum of the weights of operations that do not run: 0, with a gradient
    one_hot: bool = False  # whether the weight of each operation that runs is exactly 1

    @classmethod
    def hard(cls, weights: Tensor, index: Tensor) -> Choice:
        """Run one operation per edge; ``index`` [edges] is the position of the 1 in the one-hot ``weights``."""
        rest = weights.sum(-1) - weights.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        return cls(weights, [[i] for i in index.tolist()], rest, one_hot=True)

    @classmethod
    def support(cls, weights: Tensor) -> Choice:
        """Run the operations with non-zero weight: all for softmax weights, a few for entmax weights."""
        return cls(weights, [[k for k, w in enumerate(row) if w != 0] for row in weights.tolist()])

    @classmethod
    def fixed(cls, indices: Sequence[int], num_operations: int, device: torch.device | str = "cpu") -> Choice:
        """Run the architecture ``indices``, one operation per edge, without a gradient of α."""
        one_hot = torch.nn.functional.one_hot(torch.tensor(indices), num_operations).float()
        (weights,) = send([one_hot], torch.device(device))
        return cls(weights, [[i] for i in indices], one_hot=True)


class SuperEdge(nn.ModuleList):
    """The candidate operations of an edge. "none" is an Identity that is never called; it keeps the indices aligned."""

    def __init__(self, operations: Sequence[str], channels: int, stride: int = 1) -> None:
        made = (make_operation(name, channels, affine=False, stride=stride) for name in operations)
        super().__init__(operation or nn.Identity() for operation in made)

    def forward(self, x: Tensor, active: Sequence[int]) -> list[Tensor | None]:
        """Return the output of each operation; None for those that are not ``active``."""
        outputs: list[Tensor | None] = [None] * len(self)
        for k in active:
            outputs[k] = self[k](x)
        return outputs


class SuperCell(nn.Module):
    """A cell in which node i is the sum of the weighted candidate operations of the edges j → i from all nodes j < i.

    Edges are ordered by their end, then by their start: 0→1, 0→2, 1→2, 0→3 …; the last node is the output.

    Args:
        operations: names of the candidates, the same on every edge.
        num_nodes: the number of nodes, including the input.
        form: how an operation i that did not run contributes to the gradient of α; its value at the node is 0.
            "nb201": as in the code of NAS-Bench-201, its weight wᵢ is added as a constant over the feature map, so that
            α gets a gradient from all weights; weights of operations that did not run act like a bias.
            "darts": not at all, as in GDAS's code for the DARTS space; α gets a gradient from the operations that ran.
    """

    def __init__(self, operations: Sequence[str], num_nodes: int, channels: int, form: Form) -> None:
        super().__init__()
        if form not in ("nb201", "darts"):
            raise ValueError(f'SuperCell: form: expected "nb201" or "darts", got {form!r}')
        self.num_nodes = num_nodes
        self.form = form
        self.edges = nn.ModuleList(SuperEdge(operations, channels) for _ in range(num_nodes * (num_nodes - 1) // 2))
        self.none = [k for k, name in enumerate(operations) if name == "none"]

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        active = self._reaching_output(choice.active)
        nodes = [x]
        zero = torch.zeros_like(x)
        for node in range(1, self.num_nodes):
            edges = edges_into(node)
            outputs = [self.edges[e](source, active[e]) for e, source in zip(edges, nodes, strict=True)]
            nodes.append(node_value(outputs, choice, edges, self.form, zero))
        return nodes[-1]

    def _reaching_output(self, active: list[list[int]]) -> list[list[int]]:
        """Return the operations to run, without "none" and without those whose output does not reach the cell's output.

        Leaving these out changes no gradient.
        """
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


def node_value(
    outputs: Sequence[Sequence[Tensor | None]], choice: Choice, edges: range, form: Form, zero: Tensor
) -> Tensor:
    """Compute a node: the weighted sum of the operations that ran on its incoming edges, in the shape of ``zero``.

    Args:
        outputs: for each edge the output of each operation, None for those that did not run.
        edges: the rows of ``choice`` for these edges.
        form: see :class:`SuperCell`.
        zero: a tensor of zeros, the value if no operation ran.
    """
    weights = choice.weights[edges.start : edges.stop]
    ran = [y for edge in outputs for y in edge if y is not None]
    if not ran:
        value = zero + 0 * weights.sum()  # the gradient of α is 0, but α stays in the graph
    elif choice.one_hot and not weights.requires_grad:
        # The same value as below, but the backward pass does not copy the gradient for each operation.
        value = sum(ran[1:], ran[0])
    else:
        value = cell_aggregate(outputs, weights)
    if form == "nb201" and choice.rest is not None and choice.rest.requires_grad:
        value = value + choice.rest[edges.start : edges.stop].sum()
    return value


def edges_into(node: int) -> range:
    """Return the edges from the nodes 0 … node − 1, in this order."""
    first = node * (node - 1) // 2
    return range(first, first + node)


class Supernet(nn.Module):
    """A network of SuperCells together with the architecture parameters α of its cells.

    Args:
        network: called as ``network(x, *choices)`` with one Choice per kind of cell.
        alpha_shapes: (edges, operations) of each kind of cell.

    Attributes:
        operations: names of the candidates; subclasses set it so that a search can log the share of skip connections
            and leave out "none".
        nodes: the edges into each node of a cell; subclasses whose derived cells leave out edges set it.
        inputs: the number of edges that a node keeps in a derived cell; None: all.
    """

    operations: tuple[str, ...] = ()
    nodes: tuple[range, ...] = ()
    inputs: int | None = None

    def __init__(self, network: nn.Module, alpha_shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.network = network
        self.alphas = nn.ParameterList(nn.Parameter(1e-3 * torch.randn(shape)) for shape in alpha_shapes)

    def forward(self, x: Tensor, *choices: Choice) -> Tensor:
        return self.network(x, *choices)

    def weights(self) -> Iterator[nn.Parameter]:
        """Iterate over all parameters except α."""
        return self.network.parameters()

    def argmax(self) -> list[Choice]:
        """Return the choice of the operation with the largest α on every edge, for each kind of cell."""
        return [Choice.fixed(a.argmax(-1).tolist(), a.shape[1], a.device) for a in self.alphas]

    def derive(self) -> Any:
        """Return the genotype derived from α."""
        raise NotImplementedError


@torch.no_grad()
def batch_accuracy(supernet: Supernet, images: Tensor, labels: Tensor, choices: list[Choice]) -> float:
    """Compute the accuracy, 0 to 1, of one architecture on one batch, normalized by its own batch statistics.

    This is how the official code of GDAS validates. The running statistics, which average over all architectures that
    were sampled, are neither used nor changed.
    """
    norms = [module for module in supernet.modules() if isinstance(module, NORMS)]
    was_training = supernet.training
    supernet.train()
    for norm in norms:
        norm.track_running_stats = False
    try:
        return (supernet(images, *choices).argmax(-1) == labels).double().mean().item()
    finally:
        supernet.train(was_training)
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def recalibrate(supernet: Supernet, images: Tensor, choices: list[Choice]) -> None:
    """Recompute the batch norm statistics of a supernet for one architecture.

    During a search the running statistics average over all architectures that were sampled.
    """
    for module in supernet.modules():
        if isinstance(module, NORMS):
            module.reset_running_stats()
            module.momentum = None  # a cumulative average over the following batches
    supernet.train()
    for batch in images.tensor_split(math.ceil(len(images) / 500)):  # equal parts, because all count alike
        supernet(batch, *choices)
