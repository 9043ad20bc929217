"""Cells in which each node adds operations on earlier states; genotypes of DARTS and ReNAS consist of them.

States 0 and 1 are the outputs of the cell before the previous one and of the previous one; state 2 + i is node i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from automl_ext.training.files.reading import short


class Edge(NamedTuple):
    """An operation on the state ``start``. A node is the sum of two edges."""

    operation: str
    start: int


Nodes = tuple[tuple[Edge, ...], ...]


def check_nodes(nodes: Nodes, count: int, operations: Sequence[str]) -> None:
    """Check that there are ``count`` nodes with two operations each, on earlier states.

    Raises:
        ValueError: the number of nodes, an operation or an input is invalid.
    """
    if len(nodes) != count:
        raise ValueError(f"expected {count} nodes, got {len(nodes)}")
    for i, node in enumerate(nodes):
        if len(node) != 2:
            raise ValueError(f"node {i}: expected 2 operations, got {len(node)}")
        for name, start in node:
            if name not in operations:
                raise ValueError(f"node {i}: expected operations among {', '.join(operations)}, got {name!r}")
            if not 0 <= start < 2 + i:
                raise ValueError(f"node {i}: expected an input among 0 … {1 + i}, got {start}")


def write_nodes(nodes: Nodes) -> str:
    """Write nodes as ``|op~0|op~1|+|op~0|op~2|+…``, in the notation of NAS-Bench-201."""
    return "+".join("|" + "|".join(f"{name}~{start}" for name, start in node) + "|" for node in nodes)


def read_nodes(text: str) -> Nodes:
    """Parse nodes; the inverse of :func:`write_nodes`.

    Raises:
        ValueError: ``text`` is not in this notation.
    """
    try:
        nodes = tuple(
            tuple(Edge(name, int(start)) for name, start in (token.split("~") for token in node[1:-1].split("|")))
            for node in text.split("+")
        )
    except ValueError:
        nodes = ()
    if write_nodes(nodes) != text or not nodes:
        raise ValueError(f"expected nodes |op~i|op~j|+|op~i|op~j|+…, got {short(text)}")
    return nodes
