"""Fair sampling for the warm-up (FairNAS: Chu et al., ICCV 2021, algorithm 1 and section 3.4, strict fairness).

A step trains K networks on one batch, in which every edge runs each of its K candidates exactly once, in an order drawn
uniformly per edge. Their gradients are summed before the weights are updated once. So after any number of steps, all
operations of an edge have been trained equally often.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from automl_ext.nas.spaces.supernet import Choice


def fair_cycle(allowed: Sequence[Tensor], rng: torch.Generator) -> list[list[Choice]]:
    """Draw K networks that together run every candidate of every edge once.

    Args:
        allowed: masks of the candidates of each kind of cell, bool [edges, operations]; K of them are True on every
            edge of every kind.
        rng: generator on the CPU.

    Returns:
        K networks, one Choice per kind of cell each.
    """
    orders = []
    for mask in allowed:
        candidates = [row.nonzero().flatten().tolist() for row in mask.cpu()]
        orders.append([[row[i] for i in torch.randperm(len(row), generator=rng)] for row in candidates])
    count = len(orders[0][0])
    return [
        [
            Choice.fixed([order[i] for order in orders_of_kind], mask.shape[1], mask.device)
            for orders_of_kind, mask in zip(orders, allowed, strict=True)
        ]
        for i in range(count)
    ]
