"""Scores of an untrained network: of its features (NASWOT, MeCo, two scores of AZ-NAS), and of its gradients."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, Observation, block_features

SMALL = 1e-8  # as in the authors' code of AZ-NAS
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def naswot(seen: Observation) -> float:
    """Compute the NASWOT score (Mellor et al., ICML 2021, "Neural Architecture Search without Training", eq. 2–3).

        score = log |det K|,  K[i, j] = number of ReLU units in the same state (on or off) for images i and j

    Raises:
        NotScorableError: the network has no ReLU, or two images get the same code, so that K is singular.
    """
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


def meco(seen: Observation) -> float:
    """Compute MeCo (Jiang et al., NeurIPS 2023, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass").

        score = Σ_layers λ_min(P),  P the Pearson correlations between the channels of a convolution's output

    The correlations are those of the first image; batch norm uses all images.

    Raises:
        NotScorableError: no convolution has two channels that vary.
    """
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


def entropies(network: nn.Module, images: Tensor) -> Tensor:
    """Return s_l of every block l, float64 [blocks], which says how evenly its outputs use their channels.

        s_l = −Σ p log p,  p the eigenvalues of the covariance of the channels over images and pixels, with sum 1

    Lee & Ham, CVPR 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search": the expressivity is
    Σ_l s_l, the progressivity min_l (s_l − s_{l−1}), and the complexity the number of multiply-adds. They use Gaussian
    noise as input; on NAS-Bench-201, images order the cells better.

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W].

    Raises:
        NotScorableError: an output is not finite, or fewer than two blocks output feature maps.
    """
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
