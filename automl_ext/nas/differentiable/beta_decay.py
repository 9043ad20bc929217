"""β-decay: a regularization of α against collapse (Ye et al., "β-DARTS", CVPR 2022, equations 10 to 14).

    loss of α = cross-entropy + λ·mean over edges of log Σₖ exp(αₖ)

Its gradient is softmax(α): it pulls the largest α down most, which keeps the probabilities of an edge close together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def beta_loss(alphas: Iterable[Tensor]) -> Tensor:
    """Compute the mean of logsumexp(α) over the edges of all kinds of cells.

    Args:
        alphas: α of each kind of cell, [edges, operations]; −inf masks an operation.

    Returns:
        0-dim, with a gradient.
    """
    return torch.cat([torch.logsumexp(alpha, dim=-1) for alpha in alphas]).mean()


def beta_weight(epoch: int, epochs: int, final: float) -> float:
    """Return the weight λ in ``epoch``: ``final``·epoch/epochs, as in the authors' code, where ``final`` is 50."""
    return final * epoch / epochs
