"""RMSprop of A3C (Mnih et al. 2016, equations S2 and S3), whose statistics several processes share."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def shared_rmsprop(
    parameters: Tensor, gradient: Tensor, square_avg: Tensor, lr: float, alpha: float = 0.99, eps: float = 1e-5
) -> None:
    """Update parameters and statistics in place:

    s ← α s + (1 − α) g²,  θ ← θ − lr · g / √(s + ε)

    ε is inside the root. ``torch.optim.RMSprop`` has it outside, and takes larger steps where gradients are small.

    Args:
        parameters: θ, [n].
        gradient: g, [n].
        square_avg: s, [n].
        lr: learning rate.
        alpha: α, the decay of the average.
        eps: ε.
    """
    square_avg.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
    parameters.addcdiv_(gradient, (square_avg + eps).sqrt_(), value=-lr)
