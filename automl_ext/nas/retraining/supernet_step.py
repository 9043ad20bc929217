"""A training step of a supernet's weights, for given networks in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from automl_ext.data.images import Split
from automl_ext.nas.retraining.batch_loss import batch_loss
from automl_ext.nas.retraining.synced_norm import synced_norms
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.training import ranks


def supernet_step(
    supernet: Supernet,
    optimizer: Optimizer,
    batch: Split,
    grad_clip: float,
    networks: Sequence[Sequence[Choice]],
    class_weights: Tensor | None = None,
) -> Tensor:
    """Take one SGD step on the supernet's weights, with the sum of the gradients of one or several networks.

    ``zero_grad`` sets the gradients to None. So operations that no network runs get no update at all, neither weight
    decay nor momentum. In the official code of GDAS, which sets the gradients to zero, both still apply.

    Args:
        batch: images and labels.
        grad_clip: the largest norm of the summed gradient.
        networks: the operations that each network runs, one Choice per kind of cell.
        class_weights: weights of the classes in the loss, [classes]; None: 1.

    Returns:
        The mean loss of the networks, 0-dim, detached; with several ranks, this rank's part of it.
    """
    optimizer.zero_grad()
    losses = []
    for choices in networks:
        loss = part_loss(supernet, batch, choices, class_weights)
        loss.backward()
        losses.append(loss.detach())
    ranks.add_up_gradients(supernet.weights())
    nn.utils.clip_grad_norm_(supernet.weights(), grad_clip)
    optimizer.step()
    return torch.stack(losses).mean()


def part_loss(supernet: Supernet, batch: Split, choices: Sequence[Choice], class_weights: Tensor | None) -> Tensor:
    """Compute this rank's part of the loss of a batch; with one rank, the loss."""
    with synced_norms():
        logits = supernet(batch.images[ranks.part(len(batch.labels))], *choices)
    return batch_loss(logits, batch.labels, class_weights)
