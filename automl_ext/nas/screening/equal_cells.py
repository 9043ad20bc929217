"""Untrained cells of NAS-Bench-201 that compute the same function.

They differ in unused edges, in the order of nodes, or in skip connections that can be drawn in several ways.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from automl_ext.nas.spaces.nasbench201 import EDGES, NUM_NODES, OPERATIONS, Genotype


def function_of(genotype: Genotype) -> tuple[str, ...]:
    """Return the sorted terms whose sum is the output, for example ``("nor_conv_3x3(input)", "input")``.

    A skip connection adds the terms of its start node. "none" adds no term, and neither does an operation on a node
    without terms: pools and untrained convolutions with batch norm, whose shift is 0, map zeros to zeros. Untrained
    cells with equal terms compute the same function of their weights, up to the order in which floats are added.
    """
    terms: list[tuple[str, ...]] = [("input",)]
    for node in range(1, NUM_NODES):
        found: list[str] = []
        for operation, (start, end) in zip(genotype.operations, EDGES, strict=True):
            if end != node or operation == "none" or not terms[start]:
                continue
            found += terms[start] if operation == "skip_connect" else [f"{operation}({'+'.join(terms[start])})"]
        terms.append(tuple(sorted(found)))
    return terms[-1]


def has_dead_node(genotype: Genotype) -> bool:
    """Return whether an inner node has no path from the input, or none to the output. It computes nothing of use."""
    edges = [edge for edge, name in zip(EDGES, genotype.operations, strict=True) if name != "none"]
    from_input, to_output = {0}, {NUM_NODES - 1}
    for start, end in edges:  # ordered by their end node
        if start in from_input:
            from_input.add(end)
    for start, end in reversed(edges):
        if end in to_output:
            to_output.add(start)
    return len(from_input & to_output) < NUM_NODES


@cache
def representative(genotype: Genotype) -> Genotype:
    """Return one cell for all that compute the same function: the first in the order of encodings.

    The 15,625 cells have a few thousand representatives. Parameters must be counted on ``genotype`` itself, because
    convolutions on unused edges have parameters too.
    """
    return _representatives()[function_of(genotype)]


@cache
def _representatives() -> dict[tuple[str, ...], Genotype]:
    first: dict[tuple[str, ...], Genotype] = {}
    for operations in product(OPERATIONS, repeat=len(EDGES)):
        genotype = Genotype(operations)
        first.setdefault(function_of(genotype), genotype)
    return first
