"""Samplers: functions that map α to the weights of the candidate operations that a forward pass of the supernet runs.

Each function returns one :class:`~automl_ext.nas.spaces.supernet.Choice` per kind of cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor

from automl_ext.nas.spaces.supernet import Choice
from automl_ext.ops.gumbel import gumbel_entmax15, gumbel_softmax
from automl_ext.training.seeding import draw_seed

Sampler = Callable[[Iterable[Tensor], float, torch.Generator], list[Choice]]  # (α, τ, random generator)


def sample(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Sample one operation per edge for GDAS: hard Gumbel-softmax of log_softmax(α).

    Args:
        alphas: α of each kind of cell, [edges, operations].
        tau: temperature τ above 0.
        rng: source of the random numbers.

    Returns:
        One choice for each kind of cell.
    """
    choices = []
    for alpha in alphas:
        logits = torch.log_softmax(alpha, dim=-1)
        weights, index = gumbel_softmax(logits, tau, hard=True, seed=draw_seed(rng), return_index=True)
        choices.append(Choice.hard(weights, index))
    return choices


def sample_entmax(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Sample a few operations per edge for entmax-GDAS: those with entmax₁.₅((log_softmax(α) + g)/τ) > 0."""
    choices = []
    for alpha in alphas:
        weights = gumbel_entmax15(torch.log_softmax(alpha, dim=-1), tau, seed=draw_seed(rng))
        choices.append(Choice.support(cast(Tensor, weights)))
    return choices


def softmax_weights(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Weight all operations by softmax(α/τ) for DARTS; nothing is sampled."""
    return [Choice.support(torch.softmax(alpha / tau, dim=-1)) for alpha in alphas]
