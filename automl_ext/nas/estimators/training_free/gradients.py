"""Scores of the gradients of an untrained network: synaptic flow, which needs no images, and ZiCo."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, logits, weights

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synflow(network: nn.Module, images: Tensor) -> float:
    """Compute the logarithm of synaptic flow (Tanaka et al., NeurIPS 2020, eq. 2; Abdelfattah et al., ICLR 2021).

        score = log Σ_θ |θ · ∂R/∂θ|,  R = the sum of the logits for an image of ones and the weights |θ|

    The sum is over the weights of convolutions and linear layers. Batch norms are left out, as Abdelfattah et al. do.
    It is computed in float64, so that networks of a few hundred layers do not overflow.

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W]; only the shape is used.

    Raises:
        NotScorableError: no path leads from the image to the logits, or the sum is not finite.
    """
    linear = _without_batch_norm(network).to(images.device, torch.float64).eval()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    output = linear(torch.ones_like(images[:1], dtype=torch.float64))
    layers = weights(linear)
    gradients = torch.autograd.grad(output.sum(), layers, allow_unused=True)
    flow = sum((w * g).sum().item() for w, g in zip(layers, gradients, strict=True) if g is not None)
    if not 0 < flow < math.inf:
        raise NotScorableError(f"synflow: expected a positive flow from the image to the logits, got {flow}")
    return math.log(flow)


def _without_batch_norm(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, NORMS):
            network.set_submodule(name, nn.Identity())
    return network


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
