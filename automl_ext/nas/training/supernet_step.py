"""The loss of a supernet on a batch, of which every rank computes a part."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from automl_ext.data.images import Split
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.nas.training.batches import batch_loss
from automl_ext.nas.training.synced_norm import synced_norms
from automl_ext.training import ranks


def part_loss(supernet: Supernet, batch: Split, choices: Sequence[Choice], class_weights: Tensor | None) -> Tensor:
    """Compute this rank's part of the loss of a batch; with one rank, the loss."""
    with synced_norms():
        logits = supernet(batch.images[ranks.part(len(batch.labels))], *choices)
    return batch_loss(logits, batch.labels, class_weights)
