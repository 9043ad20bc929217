"""Two scores of AZ-NAS: expressivity and progressivity of the blocks of a network.

Lee & Ham, CVPR 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search". Their complexity is the
number of multiply-adds (:func:`automl_ext.nas.estimators.training_free.scores.multiply_adds`). They use Gaussian noise
as input; on NAS-Bench-201, images order the cells better.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, block_features

SMALL = 1e-8  # as in the authors' code


def expressivity(network: nn.Module, images: Tensor) -> float:
    """Compute Σ_l s_l, where s_l says how evenly the outputs of block l use their channels.

        s_l = −Σ p log p,  p the eigenvalues of the covariance of the channels over images and pixels, with sum 1

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W].

    Raises:
        NotScorableError: an output is not finite, or fewer than two blocks output feature maps.
    """
    return entropies(network, images).sum().item()


def progressivity(network: nn.Module, images: Tensor) -> float:
    """Compute min_l (s_l − s_{l−1}), the smallest increase from block to block; see :func:`expressivity` for s_l.

    Arguments and errors are those of :func:`expressivity`.
    """
    return entropies(network, images).diff().min().item()


def entropies(network: nn.Module, images: Tensor) -> Tensor:
    """Return s_l of every block, float64 [blocks]; see :func:`expressivity`."""
    features = block_features(network, images)
    if len(features) < 2:
        raise NotScorableError(f"expressivity: expected at least two blocks with feature maps, got {len(features)}")
    return torch.stack([_entropy(maps) for maps in features])


def _entropy(features: Tensor) -> Tensor:
    rows = features.transpose(0, 1).flatten(1)  # [C, N·H·W]
    rows = rows - rows.mean(1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh((rows @ rows.T / rows.shape[1]).double()).clamp_min(0)
    share = eigenvalues / eigenvalues.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return -(share * (share + SMALL).log()).sum()
