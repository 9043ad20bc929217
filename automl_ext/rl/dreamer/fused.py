"""Layers with their gradients written out, for what an update spends its time in.

Imagination is a few hundred products of some hundred rows and columns, each with pointwise work that, done by separate
calls on fresh memory, takes longer than the product. Here a layer works in place on a product's output while that is
in the cache, and keeps for the gradient only what the gradient needs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

elu_backward = torch.ops.aten.elu_backward
sigmoid_backward = torch.ops.aten.sigmoid_backward
tanh_backward = torch.ops.aten.tanh_backward


def elu_(x: Tensor) -> Tensor:
    """ELU in place. On CPUs torch's own takes twice the time of these, and as long as the product before it."""
    exponential = x.clamp_max(0).exp_()
    return x.clamp_min_(0).add_(exponential).sub_(1)


class LinearELU(torch.autograd.Function):
    """ELU(x Wᵀ + b); b is a vector, or has a row of its own for each of x's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = elu_(torch.addmm(bias, x, weight.t()))
        ctx.rows = bias.dim() == 2
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, y = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        g = elu_backward(gradient, 1, 1, 1, True, y)
        return (
            g @ weight if of_x else None,
            g.t() @ x if of_weight else None,
            (g if ctx.rows else g.sum(0)) if of_bias else None,
        )


def linear_elu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ELU(x Wᵀ + b), x [N, inputs], weight [outputs, inputs], bias [outputs] or [N, outputs] → [N, outputs]."""
    return LinearELU.apply(x, weight, bias)


class GRUGates(torch.autograd.Function):
    """What a GRU does after its two products; as :func:`torch.nn.GRUCell`."""

    @staticmethod
    def forward(ctx: Any, of_input: Tensor, of_state: Tensor, state: Tensor) -> Tensor:
        n = state.shape[1]
        gates = (of_input[:, : 2 * n] + of_state[:, : 2 * n]).sigmoid_()
        reset, update = gates.split(n, 1)
        new = torch.addcmul(of_input[:, 2 * n :], reset, of_state[:, 2 * n :]).tanh_()
        ctx.save_for_backward(gates, new, of_state, state)
        return torch.lerp(new, state, update)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        gates, new, of_state, state = ctx.saved_tensors
        n = new.shape[1]
        reset, update = gates.split(n, 1)
        to_state = gradient * update
        of_gates = torch.empty_like(of_state)
        of_new = tanh_backward(gradient - to_state, new)
        torch.mul(of_new, of_state[:, 2 * n :], out=of_gates[:, :n])
        torch.mul(gradient, state - new, out=of_gates[:, n : 2 * n])
        of_gates[:, : 2 * n] = sigmoid_backward(of_gates[:, : 2 * n], gates)
        to_input = of_gates.clone()
        to_input[:, 2 * n :] = of_new
        torch.mul(of_new, reset, out=of_gates[:, 2 * n :])
        return to_input, of_gates, to_state


def gru(cell: nn.GRUCell, x: Tensor, state: Tensor) -> Tensor:
    """``cell(x, state)``: x [N, inputs], state [N, n] → [N, n]."""
    of_input = F.linear(x, cell.weight_ih, cell.bias_ih)
    return GRUGates.apply(of_input, F.linear(state, cell.weight_hh, cell.bias_hh), state)


class MLP(nn.Module):
    """``layers`` hidden layers of ``units`` with ELU, and a linear one: [..., inputs] → [..., outputs]."""

    def __init__(self, inputs: int, units: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise([inputs, *[units] * layers, outputs]))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        *hidden, last = self.linears
        for layer in hidden:
            flat = linear_elu(flat, layer.weight, layer.bias)
        return last(flat).unflatten(0, x.shape[:-1])


class FrozenScalar(torch.autograd.Function):
    """A scalar of each row by an MLP that is not learned from it. The gradient with respect to the row is computed
    while the layers' outputs are in the cache; nothing but it is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        outputs, y = [], x
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            y = elu_(torch.addmm(bias, y, weight.t()))
            outputs.append(y)
        scalars = torch.addmv(biases[-1], y, weights[-1][0])
        gradient = weights[-1].expand(len(x), -1)
        for weight, y in zip(weights[-2::-1], outputs[::-1], strict=True):
            gradient = elu_backward(gradient, 1, 1, 1, True, y) @ weight
        ctx.save_for_backward(gradient)
        return scalars

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (of_x,) = ctx.saved_tensors
        return gradient.unsqueeze(1) * of_x, *[None] * (len(ctx.needs_input_grad) - 1)


def frozen_scalar(head: MLP, x: Tensor) -> Tensor:
    """``head(x).squeeze(-1)`` for [N, inputs], its parameters constants."""
    return FrozenScalar.apply(x, *(p.detach() for p in head.parameters()))
