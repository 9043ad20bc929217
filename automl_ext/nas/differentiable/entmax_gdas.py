"""entmax-GDAS: GDAS whose samples have exact zeros in place of a straight-through argmax. Our own variant.

    g ~ Gumbel(0, 1);  w = entmax₁.₅((log_softmax(α) + g)/τ)
    1. a training batch:    ω ← ω − SGD of the loss of the supernet, of which the operations with w > 0 run
    2. a validation batch:  α ← α − Adam of the loss, through w

GDAS runs one operation per edge with weight 1, and its gradient of α is that of a soft sample which did not run. Here
the sample that runs has the gradient: it is exact, for a few operations per edge in place of one.

**How many run.** Weight stays on one operation when the largest two of (log_softmax(α) + g) are more than 2τ apart. For
K equal α that has probability K/(1 + (K − 1)·exp(2τ)). With K = 5 a sample weighs this many operations on average:

    τ        10    5     2     1     0.7   0.5   0.3   0.2   0.1
    weighed  5.00  5.00  4.37  2.90  2.31  1.91  1.53  1.35  1.17
    alone    0 %   0 %   2 %   16 %  29 %  42 %  60 %  72 %  85 %

From GDAS's τ = 10 down this would be a noisy DARTS for most of the search, at DARTS's cost. So τ starts at 1. It must
not end much below 0.1 either: an edge with all weight on one operation has no gradient, since the Jacobian of entmax is
0 there (GDAS's straight-through estimate still has one), and what α has decided it cannot take back.

**What is derived.** argmax α, as in GDAS. The noise is the same for all operations, so of two operations the one with
the larger α has the larger mean weight, is in the support more often and is the largest more often (with probability
softmax(α), by the Gumbel-max trick, at any τ): all readings of "most wanted" agree. What a lone operation does without
those it was mixed with is another question, which τ → 0 answers: there the search trains single operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.nas.differentiable import search as gdas
from automl_ext.nas.differentiable.config import AnnealedConfig
from automl_ext.nas.differentiable.samplers import sample_entmax
from automl_ext.nas.spaces.space import Space


@dataclass
class EntmaxGDASConfig(AnnealedConfig):
    """A search and the training of what it finds: with GDAS's defaults, but for the temperature."""

    tau_max: float = 1.0  # temperature in the first epoch


def search(
    config: EntmaxGDASConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
) -> dict[str, Any] | None:
    """Search, then train what was found; as :func:`automl_ext.nas.differentiable.search.search`."""
    return gdas.search(config, out, resume, stop_after, space, sample_entmax, "entmax-gdas")
