"""Partial channels and edge normalization (PC-DARTS: Xu et al., ICLR 2020).

    xₑ = [aₑ, bₑ],  xₑ the tensor at the start of edge e, aₑ its first C/k channels
    node = shuffle([Σₑ νₑ Σₖ wₑₖ·opₖ(aₑ), Σₑ νₑ·bₑ]),  ν = softmax(β) over the edges into the node

Only 1/k of the channels pass through the candidate operations; the rest bypasses them. The shuffle mixes both parts, so
that other channels are selected in the next node. The edge weights ν make the choice of edges stable, although the
operations see only a part of the channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def edge_weights(beta: Tensor, nodes: Iterable[range]) -> Tensor:
    """Compute softmax(β) over the edges into each node.

    Args:
        beta: [edges].
        nodes: the edges into each node, consecutive and in ascending order.

    Returns:
        [edges], which sums to 1 over the edges into a node.
    """
    return torch.cat([torch.softmax(beta[edges.start : edges.stop], dim=0) for edges in nodes])


def selected(x: Tensor, k: int) -> Tensor:
    """Return the first C/k of the channels of ``x`` [N, C, H, W], which the operations read."""
    return x if k == 1 else x[:, : x.shape[1] // k]


def merge(
    value: Tensor, sources: Sequence[Tensor], weights: Tensor | None, k: int, strides: Sequence[int] | None = None
) -> Tensor:
    """Append the channels that bypassed the operations to the value of a node, and shuffle the channels.

    Args:
        value: weighted sum of the operations, [N, C/k, H, W].
        sources: the starts of the node's edges, [N, C, H, W].
        weights: edge weights ν [edges into the node]; None: 1.
        k: the inverse of the share of selected channels.
        strides: of the edges, 1 by default; at stride 2 a max pool halves the bypassing channels.

    Returns:
        [N, C, H, W]; ``value`` itself if k is 1.
    """
    if k == 1:
        return value
    total = None
    for i, x in enumerate(sources):
        rest = x[:, x.shape[1] // k :]
        if strides is not None and strides[i] == 2:
            rest = F.max_pool2d(rest, 2, 2, ceil_mode=True)
        rest = rest if weights is None else weights[i] * rest
        total = rest if total is None else total + rest
    assert total is not None, "a node has at least one edge"
    return F.channel_shuffle(torch.cat([value, total], dim=1), k)
