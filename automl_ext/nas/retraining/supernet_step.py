"""A training step of a supernet's weights, for one network in it."""

from __future__ import annotations

from collections.abc import Sequence

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
    choices: Sequence[Choice],
    class_weights: Tensor | None = None,
) -> Tensor:
    """Take one SGD step on the supernet's weights.

    ``zero_grad`` sets the gradients to None. So operations that do not run get no update at all, neither weight
    decay nor momentum. In the official code of GDAS, which sets the gradients to zero, both still apply.

    Args:
        batch: images and labels.
        grad_clip: the largest norm of the gradient.
        choices: the operations to run, one Choice per kind of cell.
        class_weights: weights of the classes in the loss, [classes]; None: 1.

    Returns:
        The loss, 0-dim, detached; with several ranks, this rank's part of it.
    """
    optimizer.zero_grad()
    loss = part_loss(supernet, batch, choices, class_weights)
    loss.backward()
    ranks.add_up_gradients(supernet.weights())
    nn.utils.clip_grad_norm_(supernet.weights(), grad_clip)
    optimizer.step()
    return loss.detach()


def part_loss(supernet: Supernet, batch: Split, choices: Sequence[Choice], class_weights: Tensor | None) -> Tensor:
    """Compute this rank's part of the loss of a batch; with one rank, the loss."""
    with synced_norms():
        logits = supernet(batch.images[ranks.part(len(batch.labels))], *choices)
    return batch_loss(logits, batch.labels, class_weights)
