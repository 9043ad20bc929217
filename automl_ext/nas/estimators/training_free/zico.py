"""ZiCo: large gradients that vary little between batches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, logits, weights


def zico(network: nn.Module, images: Tensor, labels: Tensor, batches: int = 2) -> float:
    """Compute the ZiCo score (Li et al., ICLR 2023, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation").

        score = Σ_layers log Σ_w mean(|g_w|) / std(g_w),  g_w the gradients of the cross-entropy in each batch

    Layers are convolutions and linear layers. The standard deviation is that of g_w, not of |g_w|, as in the authors'
    code. Weights whose gradients do not vary are left out.

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W].
        labels: int64 [N].
        batches: the number of equal batches into which the images are divided.

    Raises:
        ValueError: there are fewer than 2 batches, or fewer than 2 images per batch.
        NotScorableError: an output is not finite, or no gradient varies.
    """
    size = len(images) // max(batches, 1)
    if batches < 2 or size < 2:
        raise ValueError(f"zico: expected at least 2 batches of 2 images, got {len(images)} images, {batches} batches")
    layers = weights(network)
    gradients: list[list[Tensor]] = [[] for _ in layers]
    for part, part_labels in zip(images.split(size)[:batches], labels.split(size)[:batches], strict=True):
        loss = F.cross_entropy(logits(network, part), part_labels)
        found = torch.autograd.grad(loss, layers, allow_unused=True)
        for kept, gradient in zip(gradients, found, strict=True):
            if gradient is not None:  # None: a layer of an operation that does not run
                kept.append(gradient)
    sums = [_inverse_variation(torch.stack(kept)) for kept in gradients if kept]
    score = math.fsum(math.log(value) for value in sums if value > 0)
    if not any(value > 0 for value in sums) or not math.isfinite(score):
        raise NotScorableError("zico: no gradient is finite and varies between batches")
    return score


def _inverse_variation(gradients: Tensor) -> float:
    """Return Σ_w mean(|g_w|) / std(g_w) of gradients [batches, ...], over the weights whose gradients vary."""
    spread = gradients.std(0, correction=0)
    ratio = gradients.abs().mean(0) / spread
    return ratio[spread > 0].sum().item()
