"""Synaptic flow: a score of the gradients of an untrained network, which needs no images."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError

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
    layers = [module.weight for module in linear.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
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
