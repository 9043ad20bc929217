"""Networks with their gradients written out, for what an update spends its time in.

An update is a few hundred products of some hundred rows and columns, each with pointwise work that, done by separate
calls on fresh memory, takes as long as the product. Here a layer is one call (``layers.py``), keeps for the gradient
only what the gradient needs, and a network is one node of autograd's graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer.fused.layers import dense, dense_backward, weight_gradient


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
        return mlp(x, self.layers())


def mlp(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Layers (weight, bias) with ELU between them, [..., inputs] → [..., outputs]."""
    flat = _MLP.apply(x.reshape(-1, x.shape[-1]), *(p for layer in layers for p in layer))
    return flat.unflatten(0, x.shape[:-1])


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        inputs = [x]  # of each layer
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(dense(inputs[-1], weight, bias, elu=True))
        ctx.save_for_backward(*inputs, *weights)
        return dense(inputs[-1], weights[-1], biases[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        of_parameters: list[Tensor | None] = []
        for i in range(layers - 1, 0, -1):
            of_parameters += [gradient.sum(0), weight_gradient(gradient, inputs[i])]
            gradient = dense_backward(gradient, weights[i], inputs[i])
        of_parameters += [gradient.sum(0), weight_gradient(gradient, inputs[0])]
        of_x = dense_backward(gradient, weights[0]) if ctx.needs_input_grad[0] else None
        return of_x, *of_parameters[::-1]


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
                self.inputs.append(dense(self.inputs[-1], weight, bias, elu=True))
            weight, bias = self.layers[-1]
            self.values = torch.addmv(bias, self.inputs[-1], weight[0])
            # Of the values with respect to each layer's outputs before ELU, from the last layer on.
            self.gradients = [torch.ones_like(self.values).unsqueeze(1)]
            for (weight, _), y in zip(self.layers[:0:-1], self.inputs[:0:-1], strict=True):
                self.gradients.append(dense_backward(self.gradients[-1], weight, y))
        if x.requires_grad:
            of_x = dense_backward(self.gradients[-1], self.layers[0][0].detach())
            self.values = _WithGradient.apply(x, self.values, of_x)

    @torch.no_grad()
    def backward(self, factors: Tensor) -> None:
        """Add the gradient of Σ factors · values to ``grad`` of the parameters; factors [N]."""
        for (weight, bias), x, gradient in zip(self.layers, self.inputs, self.gradients[::-1], strict=True):
            scaled = gradient * factors.unsqueeze(1)
            assert weight.grad is not None
            assert bias.grad is not None
            weight.grad.add_(weight_gradient(scaled, x))
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
