"""DARTS, first order (Liu, Simonyan & Yang, ICLR 2019, section 2.3 with ξ = 0).

    w = softmax(α) on every edge; all operations run, nothing is sampled
    1. training batch:    ω ← ω − SGD step on the loss of the supernet
    2. validation batch:  α ← α − Adam step on the loss at the new ω

The paper takes step 2 first. The search ends with argmax α on every edge, "none" excluded as in the paper. In
NAS-Bench-201's own experiments, which allow it, first-order DARTS ends with skip connections everywhere.
The run logs the shares of skip connections and "none", which show such a collapse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_ext.nas.differentiable.config import AlphaConfig
from automl_ext.nas.differentiable.search import search_supernet
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice


@dataclass
class DARTSConfig(AlphaConfig):
    """Configuration of a search with DARTS (Liu et al. 2019) and of the training of the architecture that it finds.

    As in the paper, the learning rates are 0.025 for the weights and 3e-4 for α, and there is no warm-up. The paper
    takes 19,500 steps (50 epochs of 390 steps). On the digits data, 200 epochs are 1,600 steps. In these, α changes
    little, but the architecture depends only on the order of its values.
    """


def mix(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Weight all operations by softmax(α/τ); nothing is sampled.

    Arguments and result are those of :func:`automl_ext.nas.differentiable.gdas.sample`.
    """
    return [Choice.support(torch.softmax(alpha / tau, dim=-1)) for alpha in alphas]


def search(
    config: DARTSConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Search with DARTS, then train and test the architecture that it found.

    Arguments, result and errors are those of :func:`automl_ext.nas.differentiable.search.search_supernet`.
    """
    return search_supernet(config, out, mix, "darts", resume, stop_after, space, data)
