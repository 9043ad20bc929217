"""DARTS, first order (Liu, Simonyan & Yang, ICLR 2019, section 2.3 with ξ = 0).

    w = softmax(α) on every edge; all operations run, nothing is sampled
    1. training batch:    ω ← ω − SGD step on the loss of the supernet
    2. validation batch:  α ← α − Adam step on the loss at the new ω

The paper takes step 2 first. The search ends with argmax α on every edge. "none" may be chosen, as in NAS-Bench-201's
own experiments; the paper excludes it. In those experiments first-order DARTS ends with skip connections everywhere.
The run logs the shares of skip connections and "none", which show such a collapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.deriving import Score
from automl_ext.nas.differentiable.samplers import softmax_weights
from automl_ext.nas.differentiable.search import search_supernet
from automl_ext.nas.spaces.space import Space
from automl_ext.training.search_space import Range


@dataclass
class DARTSConfig(SupernetConfig):
    """Configuration of a search with DARTS (Liu et al. 2019) and of the training of the architecture that it finds.

    As in the paper, the learning rates are 0.025 for the weights and 3e-4 for α, and there is no warm-up. The paper
    takes 19,500 steps (50 epochs of 390 steps). On the digits data, 200 epochs are 1,600 steps. In these, α changes
    little, but the architecture depends only on the order of its values.
    """

    warmup: Annotated[float, Range(0.0, 0.8)] = 0.0  # Fraction of the epochs, at the start, during which α is fixed.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-4  # Weight decay of SGD.
    lr: Annotated[float, Range(0.01, 0.5, log=True)] = 0.025  # Initial learning rate of SGD for the weights.
    alpha_lr: Annotated[float, Range(1e-4, 0.1, log=True)] = 3e-4  # Learning rate of Adam for α.


def search(
    config: DARTSConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
    score: Score | None = None,
) -> dict[str, Any] | None:
    """Search with DARTS, then train and test the architecture that it found.

    Arguments, result and errors are those of :func:`automl_ext.nas.differentiable.search.search_supernet`.
    """
    return search_supernet(config, out, softmax_weights, "darts", resume, stop_after, space, data, score)
