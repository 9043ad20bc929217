"""The optimizer of network weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def nesterov_sgd(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """Make SGD with Nesterov momentum; plain SGD if ``momentum`` is 0, for which PyTorch has no Nesterov form."""
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
