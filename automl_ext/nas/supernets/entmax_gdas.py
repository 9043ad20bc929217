"""entmax-GDAS: GDAS with sparse samples in place of a straight-through argmax. It is a variant of this package.

    g ~ Gumbel(0, 1);  w = entmax₁.₅((log_softmax(α) + g)/τ)
    1. training batch:    ω ← ω − SGD step on the loss of the supernet, which runs the operations with w > 0
    2. validation batch:  α ← α − Adam step on the loss, through w

GDAS runs one operation per edge with weight 1; its gradient of α is that of a soft sample that did not run. Here the
gradient is that of the sample that ran. It is exact, at the cost of a few operations per edge instead of one.

**Number of operations.** One operation has all the weight when the largest two values of log_softmax(α) + g differ by
more than 2τ. For K equal α this has probability K/(1 + (K − 1)·exp(2τ)). For K = 5, the mean number of operations in
a sample and the probability of a single one are:

    τ         10    5     2     1     0.7   0.5   0.3   0.2   0.1
    number    5.00  5.00  4.37  2.90  2.31  1.91  1.53  1.35  1.17
    single    0 %   0 %   2 %   16 %  29 %  42 %  60 %  72 %  85 %

Starting from GDAS's τ = 10, most of the search would be a noisy DARTS at DARTS's cost, so τ starts at 1. It must not
end much below 0.1 either. An edge with all weight on one operation has no gradient, because the Jacobian of entmax is 0
there, so α could no longer change. GDAS's straight-through estimate still has a gradient in that case.

**Derived architecture.** As in GDAS, each edge keeps the operation with the largest α. The noise has the same
distribution for all operations. So the operation with the largest α also has the largest mean weight, is most often in
the support, and most often has the largest weight (with probability softmax(α), by the Gumbel-max trick, at any τ). A
derived operation runs alone, without the operations with which it was mixed during the search. A τ that falls to 0
closes this gap, because the search then trains single operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor

from automl_ext.nas.spaces.supernet import Choice
from automl_ext.nas.supernets.gdas import GDAS
from automl_ext.nas.supernets.supernet_options import SampledConfig
from automl_ext.ops.gumbel import gumbel_entmax15
from automl_ext.training.search_space import Range
from automl_ext.training.seeding import draw_seed


@dataclass
class EntmaxGDASConfig(SampledConfig):
    """Configuration of a search with entmax-GDAS and of the training of the architecture that it finds.

    The defaults are those of GDAS, except for the temperature.
    """

    name: ClassVar[str] = "entmax-gdas"
    tau_max: Annotated[float, Range(0.3, 5.0, log=True)] = 1.0
    """Temperature τ in the first epoch; the higher, the more operations run per edge."""
    tau_min: Annotated[float, Range(0.05, 0.3, log=True)] = 0.1  # Temperature τ of the samples in the last epoch.

    def algorithm(self, *arguments: Any) -> EntmaxGDAS:
        return EntmaxGDAS(self, *arguments)


def sample(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Sample a few operations per edge: those with entmax₁.₅((log_softmax(α) + g)/τ) > 0.

    Args:
        alphas: α of each kind of cell, [edges, operations].
        tau: temperature τ above 0.
        rng: source of the random numbers.

    Returns:
        One choice for each kind of cell.
    """
    choices = []
    for alpha in alphas:
        weights = gumbel_entmax15(torch.log_softmax(alpha, dim=-1), tau, seed=draw_seed(rng))
        choices.append(Choice.support(cast(Tensor, weights)))
    return choices


class EntmaxGDAS(GDAS):
    """The two steps of GDAS with sparse samples. Operations that do not run get neither weight decay nor momentum."""

    sample = staticmethod(sample)
