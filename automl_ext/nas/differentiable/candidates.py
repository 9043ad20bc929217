"""The operations that a search may still choose: masks over α.

A masked operation counts as α = −inf. Its probability is exactly 0, samplers never choose it, and its α gets no
gradient. The derived cell takes the largest α among the others, so "none" cannot be in it if it was masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from automl_ext.nas.spaces.supernet import Supernet
from automl_ext.training.errors import UserError

NONE = "none"


def all_candidates(supernet: Supernet) -> list[Tensor]:
    """Return masks in the shapes of α, True everywhere."""
    return [torch.ones_like(alpha, dtype=torch.bool) for alpha in supernet.alphas]


def without_none(supernet: Supernet) -> list[Tensor]:
    """Return masks in the shapes of α, False for "none". In a space without "none", they are True everywhere.

    Raises:
        UserError: the supernet does not name its operations.
    """
    count = supernet.alphas[0].shape[1]
    if len(supernet.operations) != count:
        raise UserError(
            f"--no-none: {type(supernet).__name__}.operations: expected the names of {count} operations, "
            f"got {len(supernet.operations)}; --none does not need them"
        )
    allowed = all_candidates(supernet)
    for mask in allowed:
        mask[:, [k for k, name in enumerate(supernet.operations) if name == NONE]] = False
    return allowed


def masked(alphas: Iterable[Tensor], allowed: Sequence[Tensor] | None) -> list[Tensor]:
    """Return α with −inf where ``allowed`` is False. If ``allowed`` is None, return α unchanged."""
    alphas = list(alphas)
    if allowed is None:
        return alphas
    return [alpha.masked_fill(~mask, -torch.inf) for alpha, mask in zip(alphas, allowed, strict=True)]
