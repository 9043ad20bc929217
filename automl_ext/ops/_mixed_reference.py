"""PyTorch reference of mixed-op aggregation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import compute_dtype


class _MixedOp(torch.autograd.Function):
    """Compute Σ wₖxₖ without reading inputs of weight 0, but with gradients for all weights.

    Plain ops cannot do both: masking xₖ removes it from the gradient of wₖ, and 0·NaN is NaN.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, *inputs: Tensor) -> Tensor:
        total = torch.zeros_like(inputs[0], dtype=weights.dtype)
        for x, w in zip(inputs, weights.unbind(), strict=True):
            total = total + torch.where(w == 0, 0, w * x.to(w.dtype))  # a 0-dim w does not promote a half x
        return total.to(inputs[0].dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *inputs = ctx.saved_tensors
        grad_weights = None
        if ctx.needs_input_grad[0]:
            g = grad.to(weights.dtype)
            grad_weights = torch.stack([(g * x).sum() for x in inputs])
        grad_inputs = [
            (w * grad.to(w.dtype)).to(grad.dtype) if needed else None
            for w, needed in zip(weights.unbind(), ctx.needs_input_grad[1:], strict=True)
        ]
        return (grad_weights, *grad_inputs)


class _MixedOpForward(_MixedOp):
    """:class:`_MixedOp` with a forward-mode derivative.

    It is a class of its own because torch.compile does not support a Function that has such a derivative.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        weights, *inputs = ctx.saved_tensors
        of_weights, *of_inputs = tangents
        total = torch.zeros_like(inputs[0], dtype=weights.dtype)
        for k, (x, dx) in enumerate(zip(inputs, of_inputs, strict=True)):
            if of_weights is not None:
                total = total + of_weights[k] * x.to(weights.dtype)
            if dx is not None:
                total = total + weights[k] * dx.to(weights.dtype)
        return total.to(inputs[0].dtype)


def mixed_op_reference(inputs: list[Tensor], weights: Tensor, positions: list[int]) -> Tensor:
    """Return Σ weights[positions[k]]·inputs[k] in the inputs' dtype, accumulated in at least float32."""
    given = weights[torch.tensor(positions, device=weights.device)]
    function = _MixedOpForward if _native.forward_mode() else _MixedOp
    y: Tensor = function.apply(given.to(compute_dtype(inputs[0])), *inputs)  # type: ignore[no-untyped-call, unused-ignore]
    return y
