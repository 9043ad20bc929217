"""Gumbel sampling in PyTorch: the reference for the kernels, and the fallback where there is no kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automl_ext.ops._checks import autocast_enabled, compute_dtype

_LOW = 0xFFFFFFFF


def _mul_hi_lo(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 32 bits of a 32 × 32 bit product; int64 wraps and keeps all 64 bits."""
    product = a * m
    return (product >> 32) & _LOW, product & _LOW


def philox_words(seed: Tensor, n: int) -> Tensor:
    """Return the first ``n`` words of the Philox4x32-10 stream (Salmon et al. 2011), as int64 in [0, 2³²).

    Element e uses word (e mod 64) div 16 of counter 16·(e div 64) + e mod 16. The key is the two halves of the seed.
    """
    blocks = (n + 63) // 64
    counter = torch.arange(16 * blocks, device=seed.device)
    c0, c1, c2, c3 = counter & _LOW, counter >> 32, torch.zeros_like(counter), torch.zeros_like(counter)
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        hi0, lo0 = _mul_hi_lo(c0, 0xD2511F53)
        hi1, lo1 = _mul_hi_lo(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    words = torch.stack([c0, c1, c2, c3]).reshape(4, blocks, 16)
    return words.transpose(0, 1).reshape(-1)[:n]


def gumbel_from_words(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Return standard Gumbel noise −log(−log(1 − v)), v = (word + ½)·2⁻³²; finite for every word.

    In float32, v is clamped to 1 − 2⁻²⁴: for the largest words it would round to 1.
    """
    v = words.to(dtype) * 2.0**-32 + 2.0**-33
    if dtype != torch.float64:
        v = v.clamp(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-v))


def perturbed(logits: Tensor, seed: Tensor, dim: int) -> Tensor:
    """Return logits + Gumbel noise, in float64 for float64 logits and in float32 otherwise."""
    dtype = compute_dtype(logits)
    last = logits.movedim(dim, -1) if logits.ndim else logits.reshape(1)
    noise = gumbel_from_words(philox_words(seed, last.numel()), dtype).reshape(last.shape)
    z = last.to(dtype) + noise
    return z.movedim(-1, dim) if logits.ndim else z.reshape(())


def gumbel_reference(
    logits: Tensor, seed: Tensor, tau: float | Tensor, dim: int, hard: bool, return_index: bool, activation: str
) -> tuple[Tensor, Tensor | None]:
    """Return the sample and, with ``hard`` or ``return_index``, the index; see the public functions."""
    if autocast_enabled(logits) and logits.dtype != torch.float64:
        logits = logits.float()
    z = perturbed(logits, seed, dim)
    index = z.detach().argmax(dim) if return_index or (hard and z.numel()) else None
    scaled = _divided(z, tau, dim, activation) if z.numel() else z
    if activation == "softmax":
        # Not torch.softmax: the rounding of its results and of its gradients depends on the number of threads.
        weights = (scaled - scaled.detach().amax(dim, keepdim=True)).exp() if z.numel() else scaled
        soft = weights / weights.sum(dim, keepdim=True)
    else:
        from automl_ext.ops.entmax._reference import _entmax15_reference

        soft = _entmax15_reference(scaled, dim)
    if hard and index is not None:
        one_hot = torch.zeros_like(soft).scatter(dim, index.unsqueeze(dim) if logits.ndim else index, 1.0)
        one_hot = one_hot * (soft.detach().sum(dim, keepdim=True) > 0)  # an entmax row of only -inf stays 0
        # Straight-through. soft − soft.detach() is exactly 0, so y is exactly one-hot (and NaN rows stay NaN).
        soft = one_hot + (soft - soft.detach())
    return soft.to(logits.dtype), index


def _divided(z: Tensor, tau: float | Tensor, dim: int, activation: str) -> Tensor:
    """Return z/τ minus a constant per row, which changes neither softmax nor entmax; NaN for τ ≤ 0.

    As in the kernels, the row's maximum becomes 0 and τ is at least the smallest normal number, so that neither
    z/τ nor 1/τ overflows for the largest entry.
    """
    tiny = torch.finfo(z.dtype).tiny
    if isinstance(tau, Tensor):
        tau = torch.where(tau > 0, tau, torch.nan).to(z.dtype).clamp(min=tiny)
    else:
        tau = max(tau, tiny)
    top = z.detach().amax(dim, keepdim=True)
    z = z - torch.where(top.isinf(), 0, top)
    # Masked entries are not divided: the derivative of −inf/τ with respect to τ would be 0 · inf, which is NaN.
    # The gradient of a row with NaN or +inf is NaN everywhere.
    masked = (z == -math.inf) & (top < math.inf)
    if activation == "softmax":  # a row of only -inf is NaN, and so is its gradient, as in torch.softmax
        masked = masked & (top > -math.inf)
    return torch.where(masked, z.detach(), z.masked_fill(masked, 0.0) / tau)


def gumbel_argmax_reference(logits: Tensor, seed: Tensor, dim: int) -> Tensor:
    """Return the index of the largest perturbed logit along ``dim``."""
    return perturbed(logits.detach(), seed, dim).argmax(dim)
