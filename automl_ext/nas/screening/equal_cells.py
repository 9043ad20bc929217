"""Untrained cells of NAS-Bench-201 that compute the same function.

They differ in unused edges, in the order of nodes, or in skip connections that can be drawn in several ways.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from automl_ext.nas.spaces.draw import live_nodes
from automl_ext.nas.spaces.nasbench201 import EDGES, NUM_NODES, OPERATIONS, Genotype, NASBench201

WEIGHTED = ("nor_conv_1x1", "nor_conv_3x3")


def function_of(genotype: Genotype) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sorted terms whose sum is the output, and the sorted convolutions that they contain.

    For example, the terms ``("input", "nor_conv_3x3(input)")`` contain ``("nor_conv_3x3",)``. Two separate convolutions
    of the input have the same terms as one convolution whose output is used twice; the lists of convolutions differ.

    A skip connection adds the terms of its start node. "none" adds no term, and neither does an operation on a node
    without terms: pools and untrained convolutions with batch norm, whose shift is 0, map zeros to zeros. Untrained
    cells with equal results compute the same function of their weights, up to the order in which floats are added.
    """
    nodes: list[tuple[list[str], set[int]]] = [(["input"], set())]  # terms, and the edges of their convolutions
    for node in range(1, NUM_NODES):
        terms: list[str] = []
        convolutions: set[int] = set()
        for edge, (operation, (start, end)) in enumerate(zip(genotype.operations, EDGES, strict=True)):
            before, inner = nodes[start] if end == node else ([], set())
            if operation == "none" or not before:
                continue
            terms += before if operation == "skip_connect" else [f"{operation}({'+'.join(before)})"]
            convolutions |= inner | ({edge} if operation in WEIGHTED else set())
        nodes.append((sorted(terms), convolutions))
    terms, convolutions = nodes[-1]
    return tuple(terms), tuple(sorted(genotype.operations[edge] for edge in convolutions))


def has_dead_node(genotype: Genotype) -> bool:
    """Return whether an inner node has no path from the input, or none to the output, so that it has no effect."""
    return len(live_nodes(NASBench201().graph(genotype)[1])) < NUM_NODES


@cache
def representative(genotype: Genotype) -> Genotype:
    """Return one cell for all that compute the same function: the first in the order of encodings.

    The 15,625 cells have a few thousand representatives. Parameters and multiply-adds must be counted on ``genotype``
    itself: convolutions on unused edges have parameters, and convolutions of zeros have multiply-adds.
    """
    return _representatives()[function_of(genotype)]


@cache
def _representatives() -> dict[tuple[tuple[str, ...], tuple[str, ...]], Genotype]:
    first: dict[tuple[tuple[str, ...], tuple[str, ...]], Genotype] = {}
    for operations in product(OPERATIONS, repeat=len(EDGES)):
        genotype = Genotype(operations)
        first.setdefault(function_of(genotype), genotype)
    return first
