"""GDAS: differentiable architecture search by Gumbel sampling (Dong & Yang, CVPR 2019).

Each step samples one architecture for the weights ω and another one for the architecture parameters α:

    g ~ Gumbel(0, 1);  p = softmax((log_softmax(α) + g)/τ);  w = onehot(argmax p) − sg(p) + p
    1. training batch:    ω ← ω − SGD step on the loss of the sampled architecture
    2. validation batch:  α ← α − Adam step on the loss, through w (straight-through argmax)

sg is the stop-gradient. τ falls linearly over the epochs. The search ends with argmax α on every edge; that
architecture is trained from scratch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_ext.nas.differentiable.config import AnnealedConfig
from automl_ext.nas.differentiable.search import search_supernet
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, Form
from automl_ext.ops.gumbel import gumbel_softmax
from automl_ext.training.seeding import draw_seed


@dataclass
class GDASConfig(AnnealedConfig):
    """Configuration of a search with GDAS (Dong & Yang 2019) and of the training of the architecture that it finds.

    The defaults are for one to three thousand steps; docs/nas-supernets.md has them beside the paper's values, which
    are for 97,500 steps (``--preset paper``). They were chosen with seeds 5 to 9 on Fashion-MNIST. The weights are
    trained at a large, constant rate, at which the gradient of α points to convolutions, and alone during the first
    half. Adam moves α by about its learning rate per step. Without weight decay of α and with τ ≥ 1, its small gradient
    adds up.
    """

    form: Form = "darts"  # Gradient of α as in the authors' code for NAS-Bench-201 (nb201) or for DARTS cells (darts).

    def supernet_form(self) -> Form:
        return self.form


def sample(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Sample one operation per edge: hard Gumbel-softmax of log_softmax(α).

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


def search(
    config: GDASConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Search with GDAS, then train and test the architecture that it found.

    Arguments, result and errors are those of :func:`automl_ext.nas.differentiable.search.search_supernet`.
    """
    return search_supernet(config, out, sample, "gdas", resume, stop_after, space, data)
