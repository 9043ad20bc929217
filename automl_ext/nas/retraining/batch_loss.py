"""The loss of a batch of images, of which every rank computes a part (:mod:`automl_ext.training.ranks`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.training import ranks
from automl_ext.training.errors import UserError


def check_batches(batch_size: int, images: int) -> None:
    """Check that every rank gets images of every batch.

    Raises:
        UserError: the batches have fewer images than there are ranks.
    """
    size = min(batch_size, images)
    if size < ranks.count():
        raise UserError(f"batch_size: expected at least one image for each of {ranks.count()} processes, got {size}")


def batch_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Compute this rank's part of the mean cross-entropy of a batch. The sum over the ranks is the mean.

    Args:
        logits: of this rank's part of the images, [n, classes].
        labels: of the whole batch, [N].
        class_weights: weights of the classes, [classes]; None: 1.
    """
    own = ranks.part(len(labels))
    loss = F.cross_entropy(logits, labels[own], class_weights)
    if ranks.count() == 1:
        return loss
    weights = torch.ones(len(labels), device=labels.device) if class_weights is None else class_weights[labels]
    return loss * (weights[own].sum() / weights.sum())
