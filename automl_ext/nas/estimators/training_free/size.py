"""Size: the scores that every other score is shown beside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from automl_ext.nas.estimators.training_free.passes import logits
from automl_ext.nas.retraining.training import count_parameters


def parameters(network: nn.Module, images: Tensor) -> float:
    """Count the parameters, also those of operations that do not run; ``images`` is not used."""
    return float(count_parameters(network))


@torch.no_grad()
def multiply_adds(network: nn.Module, images: Tensor) -> float:
    """Count the multiply-adds of convolutions and linear layers for one image, of the operations that run.

    Raises:
        NotScorableError: an output is not finite.
    """
    with FlopCounterMode(display=False) as counter:
        logits(network, images[:2])  # some batch norms need two values per channel
    return counter.get_total_flops() / 2 / len(images[:2])  # PyTorch counts a multiply-add as two operations
