"""What α stands for while a search goes on: whether it has decided, and whether it collapses to skip connections.

A collapse is the known failure of differentiable searches (Zela et al., ICLR 2020): operations without weights train
fastest, α follows them, and the cell that is derived hardly computes anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WATCHED = {"skip": "skip_connect", "none": "none"}  # how a metric names an operation


@torch.no_grad()
def alpha_scalars(alphas: Sequence[Tensor], operations: Sequence[str]) -> dict[str, float]:
    """Means over all edges of all kinds of cells.

    Args:
        alphas: α of each kind of cell, [edges, len(operations)].
        operations: their names. Shares of one that is not among them are left out.

    Returns:
        alpha_entropy: of softmax(α), in nats.
        share_skip, share_none: the share of edges on which this operation has the largest α.
        prob_skip, prob_none: its mean probability softmax(α).
    """
    log_p = torch.log_softmax(torch.cat([alpha.detach() for alpha in alphas]), -1)
    largest = torch.cat([alpha.detach() for alpha in alphas]).argmax(-1)
    scalars = {"alpha_entropy": -(log_p.exp() * log_p).sum(-1).mean().item()}
    for short, name in WATCHED.items():
        if name in operations:
            k = list(operations).index(name)
            scalars[f"share_{short}"] = (largest == k).float().mean().item()
            scalars[f"prob_{short}"] = log_p[:, k].exp().mean().item()
    return scalars
