"""Jacobian covariance: how little the gradients of different images correlate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, Observation, observe

OFFSET = 1e-5  # keeps the logarithm finite, as in the authors' code


def jacobian_covariance(network: nn.Module, images: Tensor) -> float:
    """Compute the jacobian covariance (Mellor et al. 2020, first version of NASWOT; Abdelfattah et al., ICLR 2021).

        score = −Σᵢ [log(λᵢ + k) + 1/(λᵢ + k)],  λ the eigenvalues of the correlation matrix of the rows of J, k = 1e-5
        J[n] = ∂(sum of all logits)/∂(image n), flattened

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W], N ≥ 2.

    Raises:
        NotScorableError: an output is not finite, or an image has no gradient.
    """
    return jacobian_covariance_of(observe(network, images))


def jacobian_covariance_of(seen: Observation) -> float:
    """Compute :func:`jacobian_covariance` from a forward pass, whose graph is freed."""
    (gradient,) = torch.autograd.grad(seen.logits.sum(), seen.images, allow_unused=True)
    if gradient is None:
        raise NotScorableError("jacobian_covariance: the logits do not depend on the images")
    correlation = torch.corrcoef(gradient.flatten(1).double())
    if not bool(correlation.isfinite().all()):
        raise NotScorableError("jacobian_covariance: the gradient of an image is zero or not finite")
    shifted = torch.linalg.eigvalsh(correlation).clamp_min(0) + OFFSET
    return -(shifted.log() + 1 / shifted).sum().item()
