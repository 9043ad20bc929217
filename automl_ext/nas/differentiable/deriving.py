"""Derives the architecture from α: decoding by the space, and the choice among several derived cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, Supernet


@contextmanager
def replaced_alphas(supernet: Supernet, alphas: Sequence[Tensor]) -> Iterator[None]:
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


def decode(supernet: Supernet, alphas: Sequence[Tensor]) -> Any:
    """Return the genotype that the space derives from ``alphas``; −inf masks an operation."""
    with replaced_alphas(supernet, alphas):
        return supernet.derive()


def derived_choices(supernet: Supernet, alphas: Sequence[Tensor]) -> list[Choice]:
    """Return the choices that run the architecture derived from ``alphas``."""
    with replaced_alphas(supernet, alphas):
        return supernet.argmax()


def by_rank(genotypes: Sequence[Any], space: Space[Any], splits: Splits, device: torch.device, seed: int) -> list[int]:
    """Return the indices of architectures, the one with the highest rank by the training-free scores first.

    The scores are those of a screening, and the ranks those among ``genotypes``. Equal ones keep their order.

    Raises:
        UserError: fewer than four training images.
    """
    scoring = ScoreJob(space, genotypes, splits, device, RANK, seed=seed)
    while scoring.epoch < scoring.epochs:
        scoring.run_epoch()
    return (-scoring.table().rank()).argsort(kind="stable").tolist()
