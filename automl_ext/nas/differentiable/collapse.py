"""Metrics of α during a search: its entropy, and the shares of skip connections and "none".

The shares show a collapse, the known failure of differentiable searches (Zela et al., ICLR 2020). Operations without
weights need no training, so α comes to prefer them, and the derived cell computes almost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WATCHED = {"skip": "skip_connect", "none": "none"}  # name in a metric → operation


@torch.no_grad()
def alpha_scalars(alphas: Sequence[Tensor], operations: Sequence[str]) -> dict[str, float]:
    """Compute metrics of α, each a mean over all edges of all kinds of cells.

    Args:
        alphas: α of each kind of cell, [edges, len(operations)]; −inf masks an operation.
        operations: names of the operations. Metrics of an operation that is missing here are omitted.

    Returns:
        alpha_entropy: the entropy of softmax(α), in nats.
        share_skip, share_none: the share of edges on which the operation has the largest α.
        prob_skip, prob_none: the operation's mean probability softmax(α).
    """
    log_p = torch.log_softmax(torch.cat([alpha.detach() for alpha in alphas]), -1)
    largest = torch.cat([alpha.detach() for alpha in alphas]).argmax(-1)
    terms = (log_p.exp() * log_p).masked_fill(log_p == -torch.inf, 0)  # 0·log 0 is 0
    scalars = {"alpha_entropy": -terms.sum(-1).mean().item()}
    for short, name in WATCHED.items():
        if name in operations:
            k = list(operations).index(name)
            scalars[f"share_{short}"] = (largest == k).float().mean().item()
            scalars[f"prob_{short}"] = log_p[:, k].exp().mean().item()
    return scalars
