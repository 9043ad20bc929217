"""Exact entmax-1.5 and sparsemax, by the compiled kernel where available and the reference elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_dim, check_float_tensor
from automl_ext.ops.entmax._arguments import check_positive_int
from automl_ext.ops.entmax._reference import _entmax15_reference, _sparsemax_reference


def entmax15(X: Tensor, dim: int = -1, k: int | None = None) -> Tensor:
    """Compute entmax-1.5: like softmax, with exact zeros.

    Solves max_p ⟨x, p⟩ + H(p) over the simplex, where H is the Tsallis entropy with α = 1.5. The solution is
    p = max(x/2 − τ, 0)² with τ such that Σp = 1 (Peters, Niculae and Martins 2019, "Sparse Sequence-to-Sequence
    Models", arXiv 1905.05702).

    Args:
        X: scores of any shape; float64, float32, bfloat16 or float16 (half precision is computed in float32).
            −inf masks an entry (exact 0). A row of only −inf gives zeros with zero gradient. NaN or +inf in a row
            gives a NaN row.
        dim: the dim that sums to one.
        k: accepted for compatibility and ignored; the result is always exact.

    Returns:
        Probabilities in the shape and dtype of ``X`` (float32 for half precision under autocast).

    Raises:
        TypeError: ``X`` is not a tensor of these dtypes, or ``dim`` or ``k`` is not an int.
        IndexError: ``dim`` is out of range.
        ValueError: ``k`` is not positive.
    """
    return _exact("entmax15", X, dim, k, _entmax15_reference)


def sparsemax(X: Tensor, dim: int = -1, k: int | None = None) -> Tensor:
    """Compute sparsemax, the Euclidean projection onto the simplex: like softmax, with exact zeros.

    p = max(x − τ, 0) with τ such that Σp = 1 (Martins and Astudillo 2016, "From Softmax to Sparsemax",
    arXiv 1602.02068). Arguments, results and errors are those of :func:`entmax15`.
    """
    return _exact("sparsemax", X, dim, k, _sparsemax_reference)


def _exact(op: str, X: Tensor, dim: int, k: int | None, reference: Callable[[Tensor, int], Tensor]) -> Tensor:
    if k is None and type(dim) is int and _native.calls_directly(X):
        try:
            direct: Tensor = getattr(_native.autograd, op)(X, dim)
            return direct
        except Exception:
            check_float_tensor(X, "X", op)
            check_dim(dim, X.ndim, op)
            raise
    check_float_tensor(X, "X", op)
    dim = check_dim(dim, X.ndim, op)
    if k is not None:
        check_positive_int(k, "k", op)
    if _native.use_native(X):
        y: Tensor = getattr(torch.ops.automl_ext, op)(X, dim)
        return y
    return reference(X, dim)
