"""The scores of AZ-NAS: expressivity, progressivity and trainability of the blocks of a network.

Lee & Ham, CVPR 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search". Their fourth score,
complexity, is the number of multiply-adds (:func:`automl_ext.nas.estimators.training_free.size.multiply_adds`). They
use Gaussian noise as input; on NAS-Bench-201, images order the cells better.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, block_features, blocks, logits
from automl_ext.nas.hooks import forward_hooks
from automl_ext.training.seeding import generator

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


def trainability(network: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Compute how well gradients keep their norm from block to block; the maximum is 0.

        score = mean_l (2 − σ_l − 1/σ_l),  σ_l the largest singular value of E[v uᵀ]
        u random signs, v = (∂block l/∂its input)ᵀ u, so that σ_l estimates the norm of the block's mean Jacobian

    A block that does not read the previous block's output has no σ_l and is left out.

    Args:
        network: an untrained network; it is not changed.
        images: float32 [N, C, H, W].
        seed: seed of the random signs.

    Raises:
        NotScorableError: an output is not finite, or no block depends on the previous one.
    """
    outputs, inputs = _cut_blocks(network, images)
    draw = generator(seed, images.device)
    signs = [torch.randint(0, 2, o.shape, generator=draw, device=o.device).to(o.dtype) * 2 - 1 for o in outputs[1:]]
    if not signs:
        raise NotScorableError(f"trainability: expected at least two blocks with feature maps, got {len(outputs)}")
    # Block outputs are cut from the graph, so that one backward pass gives each block's gradient alone.
    gradients = torch.autograd.grad(outputs[1:], inputs[:-1], signs, allow_unused=True)
    norms = [_spectral_norm(v, u) for v, u in zip(gradients, signs, strict=True) if v is not None]
    if not norms:
        raise NotScorableError("trainability: no block depends on the previous one")
    sigma = torch.stack(norms)
    return (2 - sigma - 1 / (sigma + 1e-6)).mean().item()


def _cut_blocks(network: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Run the network; return the feature maps of its blocks in order of execution, and the leaves that replace them.

    Each feature map is replaced by a leaf with the same values, so the graph of a map starts at the leaves before it.
    """
    outputs: list[Tensor] = []
    inputs: list[Tensor] = []

    def cut(module: nn.Module, arguments: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or output.dim() != 4 or not output.requires_grad:
            return None
        outputs.append(output)
        inputs.append(output.detach().requires_grad_())
        return inputs[-1]

    with forward_hooks(blocks(network), cut):
        logits(network, images)
    return outputs, inputs


def _spectral_norm(gradient: Tensor, signs: Tensor) -> Tensor:
    """Return the largest singular value of E[v uᵀ]. If a block shrinks the image, v's extra pixels become channels."""
    factor = -(-gradient.shape[2] // signs.shape[2])
    height, width = (factor * size - have for size, have in zip(signs.shape[2:], gradient.shape[2:], strict=True))
    v = F.pixel_unshuffle(F.pad(gradient, (0, width, 0, height)), factor)  # odd sizes are padded with zeros
    product = v.transpose(0, 1).flatten(1) @ signs.transpose(0, 1).flatten(1).T
    return torch.linalg.matrix_norm(product.double() / (signs.numel() // signs.shape[1]), 2)
