"""MLPs with hand-written gradients. An update of Dreamer spends most of its time in MLPs.

An update consists of a few hundred small matrix products and pointwise operations. If PyTorch calls them one by one on
newly allocated memory, the pointwise operations take as long as the products. Here a layer is one call (``layers.py``)
that saves only the tensors that its gradient needs, and a network is one node of autograd's graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer.fused.layers import dense, dense_backward, weight_gradient


class MLP(nn.Module):
    """``layers`` hidden layers of ``units`` with ELU, and a linear output layer: [..., inputs] → [..., outputs]."""

    def __init__(self, inputs: int, units: int, layers: int, outputs: int) -> None:
        super().__init__()
        sizes = [inputs, *[units] * layers, outputs]
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight [outputs, inputs] and bias [outputs] of each layer."""
        return [(layer.weight, layer.bias) for layer in self.linears]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        return mlp(x, self.layers())


def mlp(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Apply layers (weight, bias) with ELU between them, [..., inputs] → [..., outputs]."""
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
        grad_parameters: list[Tensor | None] = []  # in reverse order: bias and weight of the last layer first
        for i in range(layers - 1, 0, -1):
            grad_parameters += [gradient.sum(0), weight_gradient(gradient, inputs[i])]
            gradient = dense_backward(gradient, weights[i], inputs[i])
        grad_parameters += [gradient.sum(0), weight_gradient(gradient, inputs[0])]
        grad_x = dense_backward(gradient, weights[0]) if ctx.needs_input_grad[0] else None
        return grad_x, *grad_parameters[::-1]


class ScalarHead:
    """The scalar outputs of an MLP for each row, ``head(x).squeeze(-1)`` for x [N, inputs].

    The gradient of a scalar output with respect to each layer is one row per sample, up to the factor that arrives in
    the backward pass. It is computed in the forward pass, while the activations are still in the cache.

    Autograd propagates the gradient to ``x`` only. :meth:`backward` computes the gradient of the parameters. One
    forward pass can therefore be used by two losses, of which only one changes the parameters.

    Attributes:
        values: the outputs, [N], differentiable with respect to x.
    """

    def __init__(self, head: MLP, x: Tensor) -> None:
        self.layers = head.layers()
        with torch.no_grad():
            self.inputs = [x.detach()]  # of each layer
            for weight, bias in self.layers[:-1]:
                self.inputs.append(dense(self.inputs[-1], weight, bias, elu=True))
            weight, bias = self.layers[-1]
            self.values = torch.addmv(bias, self.inputs[-1], weight[0])
            # Gradients of the values with respect to each layer's outputs before ELU, from the last layer to the first.
            self.gradients = [torch.ones_like(self.values).unsqueeze(1)]
            for (weight, _), y in zip(self.layers[:0:-1], self.inputs[:0:-1], strict=True):
                self.gradients.append(dense_backward(self.gradients[-1], weight, y))
        if x.requires_grad:
            grad_x = dense_backward(self.gradients[-1], self.layers[0][0].detach())
            self.values = _AttachGradient.apply(x, self.values, grad_x)

    @torch.no_grad()
    def backward(self, factors: Tensor) -> None:
        """Add the gradient of Σ factors · values to ``grad`` of the parameters; factors [N]."""
        for (weight, bias), x, gradient in zip(self.layers, self.inputs, self.gradients[::-1], strict=True):
            scaled = gradient * factors.unsqueeze(1)
            assert weight.grad is not None
            assert bias.grad is not None
            weight.grad.add_(weight_gradient(scaled, x))
            bias.grad.add_(scaled.sum(0))


class _AttachGradient(torch.autograd.Function):
    """Return values [N] as a function of x [N, n] whose gradient [N, n] is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * factors.unsqueeze(1), None, None
