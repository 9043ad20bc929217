"""Helpers of the Python registrations of several families."""

from __future__ import annotations

import torch
from torch import Tensor


def contiguous_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def to_front(x: Tensor, in_dim: int | None, batch: int) -> Tensor:
    """Return x with its batch dim first; a tensor without one is expanded to ``batch`` samples."""
    return x.expand(batch, *x.shape) if in_dim is None else x.movedim(in_dim, 0)
