"""Size of a network: the baselines with which the other scores are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.nas.costs import count_macs, count_parameters
from automl_ext.nas.estimators.training_free.passes import logits


def parameters(network: nn.Module, images: Tensor) -> float:
    """Count the parameters, also those of operations that do not run; ``images`` is not used."""
    return float(count_parameters(network))


@torch.no_grad()
def multiply_adds(network: nn.Module, images: Tensor) -> float:
    """Count the multiply-adds for one image of the operations that run; see :func:`automl_ext.nas.costs.count_macs`.

    Raises:
        NotScorableError: an output is not finite.
    """
    logits(network, images[:2])  # raises; some batch norms need two values per channel
    return float(count_macs(network, images.shape[1:]))
