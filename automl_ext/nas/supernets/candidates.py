"""The operations that a search may still choose, as masks over α, and the architecture that is derived from α.

A masked operation counts as α = −inf. Its probability is exactly 0, samplers never choose it, and its α gets no
gradient. The derived cell takes the largest α among the others, so "none" cannot be in it if it was masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from automl_ext.nas.spaces.supernet import Choice, Supernet
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


def decode(supernet: Supernet, alphas: Sequence[Tensor]) -> Any:
    """Return the genotype that the space derives from ``alphas``; −inf masks an operation."""
    with _replaced_alphas(supernet, alphas):
        return supernet.derive()


def derived_choices(supernet: Supernet, alphas: Sequence[Tensor]) -> list[Choice]:
    """Return the choices that run the architecture derived from ``alphas``."""
    with _replaced_alphas(supernet, alphas):
        return supernet.argmax()


@contextmanager
def _replaced_alphas(supernet: Supernet, alphas: Sequence[Tensor]) -> Iterator[None]:
    """Replace the values of the supernet's α inside the block."""
    kept = [alpha.detach().clone() for alpha in supernet.alphas]
    try:
        _set(supernet, alphas)
        yield
    finally:
        _set(supernet, kept)


@torch.no_grad()
def _set(supernet: Supernet, alphas: Sequence[Tensor]) -> None:
    for alpha, value in zip(supernet.alphas, alphas, strict=True):
        alpha.copy_(value)
