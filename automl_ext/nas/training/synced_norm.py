"""Batch norm whose statistics are those of the whole batch, of which each rank has a part.

PyTorch's SyncBatchNorm does the same on GPUs only. A batch norm exchanges two numbers per channel in the forward pass
and two in the backward pass.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from automl_ext.training import ranks


class _Synced(TorchFunctionMode):
    """Replaces ``F.batch_norm`` in training mode by :func:`batch_norm`, in every module inside the context."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def synced_norms() -> contextlib.AbstractContextManager[Any]:
    """Return a context for the forward pass of a part of a batch. With one rank it does nothing."""
    return _Synced() if ranks.count() > 1 else contextlib.nullcontext()


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute ``F.batch_norm`` of x [N, C, ...]; in training mode, with the statistics of the batches of all ranks."""
    if not training:
        return torch.batch_norm(
            x, weight, bias, running_mean, running_var, False, momentum, eps, torch.backends.cudnn.enabled
        )
    y, mean, variance, size = _BatchNorm.apply(x, weight, bias, eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
        if running_var is not None:
            running_var.lerp_((variance * size / (size - 1)).to(running_var), momentum)  # unbiased, as in PyTorch
    result: Tensor = y
    return result


class _BatchNorm(torch.autograd.Function):
    """Ioffe & Szegedy 2015, with sums over the batches of all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims, n = [0, *range(2, x.dim())], x.numel() // x.shape[1]
        variance, mean = (moment.double() for moment in torch.var_mean(x, dims, correction=0))
        sums = ranks.add_up(torch.cat([n * mean, n * (variance + mean.square()), mean.new_tensor([n])]))
        size = sums[-1]
        mean, square = (sums[:-1] / size).chunk(2)
        variance = (square - mean.square()).clamp(min=0)  # float64, so that little cancels
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), size)
        y = torch.batch_norm(x, weight, bias, mean.to(x), variance.to(x), False, 0.0, eps, False)
        ctx.mark_non_differentiable(mean, variance, size)
        return y, mean, variance, size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, size = ctx.saved_tensors
        shape = [1, -1, *[1] * (x.dim() - 2)]
        dims = [0, *range(2, x.dim())]
        normalized = (x - mean.to(x).view(shape)) * inverse.to(x).view(shape)
        own = torch.cat([gradient.sum(dims), (gradient * normalized).sum(dims)]).double()
        of_bias, of_weight = own.to(x).chunk(2)  # this rank's part, as of every other parameter
        mean_gradient, mean_product = (ranks.add_up(own.clone()) / size).to(x).chunk(2)
        scale = inverse.to(x) if weight is None else inverse.to(x) * weight
        centered = gradient - mean_gradient.view(shape) - normalized * mean_product.view(shape)
        needed = ctx.needs_input_grad
        return (
            scale.view(shape) * centered if needed[0] else None,
            of_weight if needed[1] else None,
            of_bias if needed[2] else None,
            None,
        )
