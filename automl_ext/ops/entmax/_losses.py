"""Fenchel–Young losses: cross-entropy with sparsemax, entmax or normmax in place of softmax.

L(x, y) = H(p) + ⟨p − e_y, x⟩, where p is the map of x, H its entropy and e_y the one-hot vector of the target. The
gradient is p − e_y (Blondel, Martins and Niculae 2020, "Learning with Fenchel–Young losses", arXiv 1901.02324). L is
zero if the score of the target exceeds the others by the margin of the map, which is 1 for sparsemax and normmax and
1/(α − 1) for α-entmax, 2 for entmax-1.5.

A target can also be a row y of probabilities. Its loss is Σᵢ yᵢ L(x, i), as in ``F.cross_entropy``, with gradient
p − y. It is the Fenchel–Young loss of y plus H(y), which does not depend on x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from automl_ext import _native
from automl_ext.ops._checks import check_float_tensor, compute_dtype
from automl_ext.ops.entmax._arguments import (
    check_row_parameter,
    check_target_range,
    check_targets,
    parameter_tensor,
)
from automl_ext.ops.entmax._bisect import (
    NORMMAX_MIN_ALPHA,
    away_from_zero,
    entmax_bisect,
    normmax_bisect,
    sparsemax_bisect,
)
from automl_ext.ops.entmax._exact import entmax15, sparsemax
from automl_ext.ops.entmax._reference import output_dtype, row_sum, shift_by_max


def sparsemax_loss(X: Tensor, target: Tensor, k: int | None = None) -> Tensor:
    """Compute the sparsemax loss of each row; H(p) = (1 − ‖p‖²)/2.

    Args:
        X: scores [..., C]; float64, float32, bfloat16 or float16 (half precision is computed in float32). −inf masks
            a class; a masked target has loss +inf.
        target: class indices [...], int64; or probabilities of the classes [..., C], in any of these dtypes. The loss
            of probabilities y is Σᵢ yᵢ L(X, i), as in ``F.cross_entropy``. They are not checked, and may have a
            gradient.
        k: accepted for compatibility and ignored.

    Returns:
        Losses [...] in the dtype of ``X`` (float32 for half precision under autocast). Twice differentiable.

    Raises:
        TypeError: ``X`` is not a tensor of these dtypes, or ``target`` is neither int64 nor of the shape of ``X``.
        ValueError: shapes do not match, devices differ, or ``k`` is not positive.
        IndexError: a target is outside [0, C−1]. On a GPU and inside torch.compile, the loss of such a row is NaN
            instead.
    """
    return _loss(X, target, "sparsemax_loss", lambda x: sparsemax(x, -1, k), _gini_entropy)


def entmax15_loss(X: Tensor, target: Tensor, k: int | None = None) -> Tensor:
    """Compute the entmax-1.5 loss of each row; H(p) = (1 − Σp^1.5)/0.75. See :func:`sparsemax_loss`."""
    return _loss(X, target, "entmax15_loss", lambda x: entmax15(x, -1, k), _entropy15)


def sparsemax_bisect_loss(X: Tensor, target: Tensor, n_iter: int = 50) -> Tensor:
    """Compute the sparsemax loss of each row, exactly; ``n_iter`` is ignored. See :func:`sparsemax_loss`."""
    return _loss(X, target, "sparsemax_bisect_loss", lambda x: sparsemax_bisect(x, n_iter=n_iter), _gini_entropy)


def entmax_bisect_loss(X: Tensor, target: Tensor, alpha: float | Tensor = 1.5, n_iter: int = 50) -> Tensor:
    """Compute the alpha-entmax loss of each row, cross-entropy at α = 1; H(p) = (1 − Σp^α)/(α(α−1)).

    ``alpha`` > 0 is a number or a tensor that broadcasts to [..., 1]. It is a constant of the loss: a tensor that
    requires a gradient raises a ValueError. The other arguments, the result and the errors are those of
    :func:`sparsemax_loss`.
    """
    op = "entmax_bisect_loss"
    check_float_tensor(X, "X", op)
    alpha = _constant(alpha, X, op, 0.0, above=True)
    return _loss(X, target, op, lambda x: entmax_bisect(x, alpha, -1, n_iter), lambda p: _tsallis_entropy(p, alpha))


def normmax_bisect_loss(X: Tensor, target: Tensor, alpha: float | Tensor = 2, n_iter: int = 50) -> Tensor:
    """Compute the alpha-normmax loss of each row; H(p) = 1 − ‖p‖_α, α ≥ 1.0001. See :func:`entmax_bisect_loss`."""
    op = "normmax_bisect_loss"
    check_float_tensor(X, "X", op)
    alpha = _constant(alpha, X, op, NORMMAX_MIN_ALPHA)
    return _loss(X, target, op, lambda x: normmax_bisect(x, alpha, -1, n_iter), lambda p: _norm_entropy(p, alpha))


def _constant(alpha: float | Tensor, X: Tensor, op: str, low: float, above: bool = False) -> float | Tensor:
    if isinstance(alpha, Tensor) and (alpha.requires_grad or _has_tangent(alpha)):
        raise ValueError(f"{op}: alpha: the loss has no gradient in alpha; pass alpha.detach()")
    return check_row_parameter(alpha, "alpha", op, X, [*X.shape[:-1], 1], low, math.inf, above=above)


def _has_tangent(x: Tensor) -> bool:
    return _native.forward_mode() and forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]


def _gini_entropy(p: Tensor) -> Tensor:
    return row_sum(p * (1 - p)).squeeze(-1) / 2


def _entropy15(p: Tensor) -> Tensor:
    return row_sum(p * (1 - p.sqrt())).squeeze(-1) / 0.75


def _tsallis_entropy(p: Tensor, alpha: float | Tensor) -> Tensor:
    alpha = parameter_tensor(alpha, p.dtype, p.device)
    a = away_from_zero(alpha - 1)  # at alpha = 1 Shannon's entropy
    return row_sum(torch.where(p > 0, -p * torch.expm1(a * p.log()) / (a * alpha), p)).squeeze(-1)


def _norm_entropy(p: Tensor, alpha: float | Tensor) -> Tensor:
    alpha = parameter_tensor(alpha, p.dtype, p.device)
    # Divide by the largest entry first, so that the powers do not underflow.
    top = p.amax(-1, keepdim=True) if p.numel() else p.sum(-1, keepdim=True)
    ratio = p / torch.where(top == 0, 1, top)
    return (1 - top * row_sum(ratio.pow(alpha)).pow(1 / alpha)).squeeze(-1)


def _loss(
    X: Tensor,
    target: Tensor,
    op: str,
    project: Callable[[Tensor], Tensor],
    entropy: Callable[[Tensor], Tensor],
) -> Tensor:
    check_float_tensor(X, "X", op)
    soft = check_targets(X, target, op)
    classes = X.shape[-1]
    if not soft:
        check_target_range(target, classes, op)
    dtype, x = output_dtype(X), X.to(compute_dtype(X))
    p = project(x)
    if p.numel() == 0:
        return x.sum(-1).to(dtype)
    function = _WithTangent if _native.forward_mode() else _WithGradient
    if soft:
        return _expected(x, target.to(x.dtype), p, entropy, function).to(dtype)
    class_of = torch.arange(classes, device=X.device)
    residual = p - (target.unsqueeze(-1) == class_of).to(p.dtype)
    q = residual.detach()
    # Subtract the maximum of the scores: Σq = 0, so the result does not change, and large scores do not cancel.
    gain = row_sum(torch.where(q == 0, 0, q * shift_by_max(x.detach())[0])).squeeze(-1)
    value = (entropy(p.detach()) + gain).clamp(min=0)
    value = torch.where((target >= 0) & (target < classes), value, torch.nan)
    loss: Tensor = function.apply(x, residual, value)  # type: ignore[no-untyped-call, unused-ignore]
    return loss.to(dtype)


def _expected(
    x: Tensor, target: Tensor, p: Tensor, entropy: Callable[[Tensor], Tensor], function: type[_WithGradient]
) -> Tensor:
    """Compute Σᵢ yᵢ (Ω*(x) − xᵢ) for probabilities y, where Ω*(x) = H(p) + ⟨p, x⟩ has the gradient p."""
    z = shift_by_max(x)[0]  # it changes no term of the sum, and large scores do not cancel
    q = p.detach()
    value = entropy(q) + row_sum(torch.where(q == 0, 0, q * z.detach())).squeeze(-1)
    conjugate: Tensor = function.apply(x, p, value)  # type: ignore[no-untyped-call, unused-ignore]
    z = torch.where((target == 0) & (z == -torch.inf), 0, z)  # 0 · −inf counts as 0
    return row_sum(target).squeeze(-1) * conjugate - row_sum(target * z).squeeze(-1)


class _WithGradient(torch.autograd.Function):
    """Return ``value`` [...] with ``residual`` [..., C] as its gradient with respect to x [..., C].

    The graph of the residual is kept, so the second derivative is the Jacobian of the map. With plain operations the
    first derivative would be a difference of rounded terms.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, residual: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (residual,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * residual, None, None


class _WithTangent(_WithGradient):
    """:class:`_WithGradient` with a forward-mode derivative.

    It is a class of its own because torch.compile does not support a Function that has such a derivative.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dresidual: Tensor, dvalue: Tensor) -> Tensor:
        (residual,) = ctx.saved_tensors
        return row_sum(residual * dx).squeeze(-1)
