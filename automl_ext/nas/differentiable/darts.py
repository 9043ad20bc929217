"""DARTS, first order (Liu, Simonyan & Yang, ICLR 2019, section 2.3 with ξ = 0).

    w = softmax(α) on every edge; all operations run, nothing is drawn
    1. a training batch:    ω ← ω − SGD of the loss of the supernet
    2. a validation batch:  α ← α − Adam of the loss at these ω

The paper takes step 2 first. The search ends with argmax α on every edge; "none" can be it, as in NAS-Bench-201's
own experiments (the paper leaves it out). In those, first-order DARTS ends with skip connections everywhere: the
shares of skip and none that a run logs show whether it does here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.nas.differentiable import search as gdas
from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.samplers import softmax_weights
from automl_ext.nas.spaces.space import Space


@dataclass
class DARTSConfig(SupernetConfig):
    """A search and the training of what it finds.

    Learning rates and the absence of a warm-up are the paper's, which searches 50 epochs of 390 steps. On the digits
    200 epochs are 1,600 steps: α stays near its start, but its order is all that counts.
    """

    warmup: float = 0.0  # share of the epochs, the first ones, in which α rests
    weight_decay: float = 3e-4
    lr: float = 0.025  # of the weights (SGD, Nesterov), at the start of the cosine
    alpha_lr: float = 3e-4  # of α (Adam)


def search(
    config: DARTSConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
) -> dict[str, Any] | None:
    """Search, then train what was found; as :func:`automl_ext.nas.differentiable.search.search`."""
    return gdas.search(config, out, resume, stop_after, space, softmax_weights, "darts")
