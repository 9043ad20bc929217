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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        gates, new, of_state, state = ctx.saved_tensors
        n = new.shape[1]
        reset, update = gates.split(n, 1)
        to_state = gradient * update
        of_gates = torch.empty_like(of_state)
        of_new = tanh_backward(gradient - to_state, new)
        torch.mul(of_new, of_state[:, 2 * n :], out=of_gates[:, :n])
        torch.mul(gradient, state - new, out=of_gates[:, n : 2 * n])
        both = sigmoid_backward(of_gates[:, : 2 * n], gates)
        of_gates[:, : 2 * n] = both
        torch.mul(of_new, reset, out=of_gates[:, 2 * n :])
        return torch.cat([both, of_new], 1), of_gates, to_state


def gru(cell: nn.GRUCell, x: Tensor, state: Tensor) -> Tensor:
    """``cell(x, state)``: x [N, inputs], state [N, n] → [N, n]."""
    of_input = F.linear(x, cell.weight_ih, cell.bias_ih)
    return GRUGates.apply(of_input, F.linear(state, cell.weight_hh, cell.bias_hh), state)


class MLP(nn.Module):
    """``layers`` hidden layers of ``units`` with ELU, and a linear one: [..., inputs] → [..., outputs]."""

    def __init__(self, inputs: int, units: int, layers: int, outputs: int) -> None:
        super().__init__()
        sizes = [inputs, *[units] * layers, outputs]
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight [outputs, inputs] and bias of each."""
        return [(layer.weight, layer.bias) for layer in self.linears]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        *hidden, last = self.layers()
        for weight, bias in hidden:
            flat = linear_elu(flat, weight, bias)
        return F.linear(flat, *last).unflatten(0, x.shape[:-1])


class ScalarOf:
    """A scalar of each row by an MLP, ``head(x).squeeze(-1)`` for [N, inputs].

    A scalar has but one gradient per row, so it is computed at once, while the layers' outputs are in the cache; what
    comes back is a factor per row. For the row autograd has it; the parameters' is left to :meth:`backward`, so that
    one pass serves a loss that must not change the parameters and another that shall.

    Attributes:
        values: [N], with a gradient to x.
    """

    def __init__(self, head: MLP, x: Tensor) -> None:
        self.layers = head.layers()
        with torch.no_grad():
            self.inputs = [x.detach()]  # of each layer
            for weight, bias in self.layers[:-1]:
                self.inputs.append(elu_(torch.addmm(bias, self.inputs[-1], weight.t())))
            weight, bias = self.layers[-1]
            values = torch.addmv(bias, self.inputs[-1], weight[0])
            # Of the values with respect to each layer's outputs before ELU, from the last layer on.
            self.gradients = [torch.ones_like(values).unsqueeze(1)]
            gradient = self.inputs[-1].clamp_max(0).add_(1).mul_(weight)
            for i in range(len(self.layers) - 2, -1, -1):
                self.gradients.append(gradient)
                gradient = gradient @ self.layers[i][0]
                if i > 0:
                    gradient = elu_backward(gradient, 1, 1, 1, True, self.inputs[i])
        self.values = _WithGradient.apply(x, values, gradient)

    @torch.no_grad()
    def backward(self, factors: Tensor) -> None:
        """Add the gradient of Σ factors · values to ``grad`` of the parameters; factors [N]."""
        for (weight, bias), x, gradient in zip(self.layers, self.inputs, self.gradients[::-1], strict=True):
            scaled = gradient * factors.unsqueeze(1)
            assert weight.grad is not None
            assert bias.grad is not None
            weight.grad.addmm_(scaled.t(), x)
            bias.grad.add_(scaled.sum(0))


class _WithGradient(torch.autograd.Function):
    """Values [N] as if computed from x [N, n], given their gradient with respect to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * factors.unsqueeze(1), None, None
