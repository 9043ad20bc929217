"""NASWOT: how differently the ReLUs of an untrained network respond to different images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, Observation, observe


def naswot(network: nn.Module, images: Tensor) -> float:
    """Compute the NASWOT score (Mellor et al., ICML 2021, "Neural Architecture Search without Training", eq. 2–3).

        score = log |det K|,  K[i, j] = number of ReLU units in the same state (on or off) for images i and j

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W].

    Raises:
        NotScorableError: the network has no ReLU, an output is not finite, or two images get the same code, so that
            K is singular.
    """
    return naswot_of(observe(network, images))


def naswot_of(seen: Observation) -> float:
    """Compute :func:`naswot` from a forward pass."""
    if not seen.relus:
        raise NotScorableError("naswot: the network has no ReLU")
    size, device = len(seen.images), seen.images.device
    kernel = torch.zeros(size, size, dtype=torch.float64, device=device)
    for output in seen.relus:
        signs = torch.where(output > 0, 1.0, -1.0).flatten(1)
        # Equal states minus unequal ones is the product of the signs; a float32 sum is exact up to 2²⁴ units.
        kernel += (signs @ signs.T + signs.shape[1]) / 2
    score = torch.linalg.slogdet(kernel).logabsdet.item()
    if not math.isfinite(score):
        raise NotScorableError("naswot: two images switch on the same ReLUs")
    return score
