"""MeCo: how independent the channels of the feature maps of one image are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, Observation, observe


def meco(network: nn.Module, images: Tensor) -> float:
    """Compute MeCo (Jiang et al., NeurIPS 2023, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass").

        score = Σ_layers λ_min(P),  P the Pearson correlations between the channels of a convolution's output

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W]. The correlations are those of the first image; batch norm uses all images.

    Raises:
        NotScorableError: an output is not finite, or no convolution has two channels that vary.
    """
    return meco_of(observe(network, images))


def meco_of(seen: Observation) -> float:
    """Compute :func:`meco` from a forward pass."""
    lowest = []
    for output in seen.convolutions:
        channels = output.flatten(1).double()
        channels = channels - channels.mean(1, keepdim=True)
        norms = channels.norm(dim=1, keepdim=True)
        channels = (channels / norms)[norms[:, 0] > 0]  # a constant channel correlates with nothing
        if len(channels) > 1:
            lowest.append(torch.linalg.eigvalsh(channels @ channels.T)[0])
    if not lowest:
        raise NotScorableError("meco: expected a convolution with two channels that vary")
    return torch.stack(lowest).sum().item()
