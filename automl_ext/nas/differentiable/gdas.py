"""GDAS: differentiable architecture search by Gumbel sampling (Dong & Yang, CVPR 2019).

Each step samples one architecture for the weights ω and another one for the architecture parameters α:

    g ~ Gumbel(0, 1);  p = softmax((log_softmax(α) + g)/τ);  w = onehot(argmax p) − sg(p) + p
    1. training batch:    ω ← ω − SGD step on the loss of the sampled architecture
    2. validation batch:  α ← α − Adam step on the loss, through w (straight-through argmax)

sg is the stop-gradient. τ falls linearly over the epochs. The search ends with argmax α on every edge; that
architecture is trained from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.nas.differentiable.config import AnnealedConfig
from automl_ext.nas.differentiable.deriving import Score
from automl_ext.nas.differentiable.samplers import sample
from automl_ext.nas.differentiable.search import search_supernet
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Form


@dataclass
class GDASConfig(AnnealedConfig):
    """Configuration of a search with GDAS (Dong & Yang 2019) and of the training of the architecture that it finds.

    The defaults were chosen on the digits data, where 200 epochs are 1,600 steps. The paper takes 97,500 steps (250
    epochs of 390 steps). Adam moves α by about its learning rate per step, so with the paper's 3e-4 α would hardly
    change in 1,600 steps; the default is 0.03. During the warm-up α is fixed. The paper has no warm-up. Without it, α
    tends to favor operations that need no training (none, pooling, skip connections), because the weights of the others
    have not been trained yet.

    The paper's values are channels 16, cells 5, epochs 250, warmup 0, lr 0.025, alpha_lr 3e-4 and form nb201.
    """

    form: Form = "darts"  # Gradient of α as in the authors' code for NAS-Bench-201 (nb201) or for DARTS cells (darts).

    def supernet_form(self) -> Form:
        return self.form


def search(
    config: GDASConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
    score: Score | None = None,
) -> dict[str, Any] | None:
    """Search with GDAS, then train and test the architecture that it found.

    Arguments, result and errors are those of :func:`automl_ext.nas.differentiable.search.search_supernet`.
    """
    return search_supernet(config, out, sample, "gdas", resume, stop_after, space, data, score)
