"""PyTorch references of entmax-1.5 and sparsemax: exact, by sorting.

The support (the set of non-zero entries) is found without a gradient. On a given support the threshold has a closed
form, written in differentiable operations. It gives first and higher derivatives and works with torch.func and
torch.compile. Entries off the support are exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from automl_ext.ops._checks import autocast_enabled, compute_dtype, most_precise


def output_dtype(x: Tensor) -> torch.dtype:
    """Return the output dtype, as in torch.softmax: the dtype of x, but float32 for half precision under autocast."""
    return compute_dtype(x) if autocast_enabled(x) else x.dtype


def shift_by_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` minus its maximum over the last dim, and the mask [..., 1] of rows with a NaN or +inf.

    The maps do not change under the shift, so the maximum needs no gradient.
    """
    top = x.detach().amax(-1, keepdim=True)
    return x - torch.where(top.isinf(), 0, top), ~(top < torch.inf)


def nan_rows(p: Tensor, x: Tensor, bad: Tensor) -> Tensor:
    """Return ``p`` with NaN in the ``bad`` rows, whose gradient is NaN too."""
    return torch.where(bad, x, p) * torch.where(bad, torch.nan, 1.0).to(p.dtype)


def row_sum(x: Tensor) -> Tensor:
    """Return ``x.sum(-1, keepdim=True)``, bit-identical for any number of threads.

    PyTorch splits a sum among threads only if the result is a single number.
    """
    n, block = x.shape[-1], 1024
    if x.device.type != "cpu" or n < 32_768 or x.numel() != n:
        return x.sum(-1, keepdim=True)
    whole = n - n % block
    blocks = x[..., :whole].unflatten(-1, (-1, block)).sum(-1)  # type: ignore[no-untyped-call]
    return row_sum(torch.cat([blocks, x[..., whole:].sum(-1, keepdim=True)], -1))


def _ranks(n: int, like: Tensor) -> Tensor:
    return torch.arange(1, n + 1, device=like.device, dtype=like.dtype)


def _above(z: Tensor, tau: Tensor) -> Tensor:
    """Return z > τ for τ < 0, but False for elements at the threshold up to rounding, as in the kernels."""
    return z > tau * (1 - 2 * torch.finfo(z.dtype).eps)


def _entmax15_support(z: Tensor) -> Tensor:
    # In double, because the variance cancels on long flat rows. On a GPU, a float32 cumsum would add in float32.
    top = most_precise(z.sort(-1, descending=True).values)
    rank = _ranks(z.shape[-1], top)
    mean = top.cumsum(-1) / rank
    variance = top.square().cumsum(-1) / rank - mean.square()
    tau = mean - (1 / rank - variance).clamp(min=0).sqrt()
    size = (tau <= top).sum(-1, keepdim=True).clamp(min=1)
    return _above(z, tau.gather(-1, size - 1))


def _sparsemax_support(z: Tensor) -> Tensor:
    top = most_precise(z.sort(-1, descending=True).values)
    rank = _ranks(z.shape[-1], top)
    tau = (top.cumsum(-1) - 1) / rank
    size = (tau < top).sum(-1, keepdim=True).clamp(min=1)
    return _above(z, tau.gather(-1, size - 1))


def _entmax15_rows(x: Tensor) -> Tensor:
    z, bad = shift_by_max(x)
    z = z / 2
    support = _entmax15_support(z.detach())
    size = support.sum(-1, keepdim=True).clamp(min=1)
    z = torch.where(support, z, 0)
    mean = row_sum(z) / size
    spread = row_sum(torch.where(support, z - mean, 0).square())
    # Σ(z − τ)² = 1 on the support; the root is at least 1/size, so its derivatives are finite.
    tau = mean - ((1 - spread) / size).sqrt()
    p = torch.where(support, z - tau, 0).clamp(min=0).square()
    return nan_rows(p, x, bad)


def _sparsemax_rows(x: Tensor) -> Tensor:
    z, bad = shift_by_max(x)
    support = _sparsemax_support(z.detach())
    size = support.sum(-1, keepdim=True).clamp(min=1)
    z = torch.where(support, z, 0)
    tau = (row_sum(z) - 1) / size
    p = torch.where(support, z - tau, 0).clamp(min=0)
    return nan_rows(p, x, bad)


def _along(rows: Callable[[Tensor], Tensor], x: Tensor, dim: int) -> Tensor:
    dtype = output_dtype(x)
    if x.numel() == 0:
        return x.to(dtype, copy=True)
    if x.ndim == 0:
        return _along(rows, x.unsqueeze(0), 0).squeeze(0)
    return rows(x.movedim(dim, -1).to(compute_dtype(x))).movedim(-1, dim).to(dtype)


def _entmax15_reference(x: Tensor, dim: int) -> Tensor:
    """Compute p = max(x/2 − τ, 0)² with Σp = 1 over ``dim`` (Peters, Niculae and Martins 2019, algorithm 2)."""
    return _along(_entmax15_rows, x, dim)


def _sparsemax_reference(x: Tensor, dim: int) -> Tensor:
    """Compute p = max(x − τ, 0) with Σp = 1 over ``dim`` (Martins and Astudillo 2016, algorithm 1)."""
    return _along(_sparsemax_rows, x, dim)
