"""Matrix products on one CPU core, by whichever of torch's two libraries is the faster for them.

``torch.mm`` in float32 asks MKL, which on AMD's processors leaves AVX-512 aside. oneDNN does not, and takes half the
time there for what is not small. torch itself uses it for float32 in compiled graphs only; the operator of those is
called here. Where there is none, for other dtypes and on other devices it is ``torch.mm``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 20  # multiplications, below which oneDNN's overhead is more than it gains


def _onednn() -> Any:
    try:
        linear = torch.ops.mkldnn._linear_pointwise
        linear(torch.ones(1, 1), torch.ones(1, 1), None, "none", [], "")
    except (AttributeError, RuntimeError):  # a build without it
        return None
    return linear


_linear = _onednn()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, without a gradient: x [N, inputs], weight [outputs, inputs], bias [outputs] → [N, outputs]."""
    if _linear is None or x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() * weight.shape[0] < SMALL:
        return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
    return _linear(_laid_out(x), _laid_out(weight), bias, "none", [], "")


def _laid_out(matrix: Tensor) -> Tensor:
    """A matrix that is not a transposed part of another: with these oneDNN's product takes far longer."""
    rows, columns = matrix.stride()
    return matrix if columns == 1 or (rows == 1 and columns == matrix.shape[0]) else matrix.contiguous()


def product(a: Tensor, b: Tensor) -> Tensor:
    """A B, without a gradient."""
    return linear(a, b.t())
