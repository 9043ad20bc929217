"""The gradient of a multilayer perceptron without autograd.

For small networks, autograd takes a large part of an update's time: it builds a graph, and its gradients are copied
into one vector. Here the products write directly into that vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLPGradient:
    """Forward and backward pass of linear layers with ReLU between them.

    Args:
        layers: the layers in order.
        gradient: the vector that :meth:`backward` writes: weight and bias of each layer in order.
    """

    def __init__(self, layers: Sequence[nn.Linear], gradient: Tensor) -> None:
        parameters = [p.detach() for layer in layers for p in (layer.weight, layer.bias)]
        parts = gradient.split([p.numel() for p in parameters])
        views = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
        self._weights, self._biases = parameters[::2], parameters[1::2]
        self._weight_gradients, self._bias_gradients = views[::2], views[1::2]
        self._inputs: list[Tensor] = []  # input of each layer

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs [N, outputs] of inputs [N, inputs]."""
        self._inputs = []
        for weight, bias in zip(self._weights, self._biases, strict=True):
            if self._inputs:
                x = x.relu_()
            self._inputs.append(x)
            x = torch.addmm(bias, x, weight.t())
        return x

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the gradient of all parameters, given the gradient of the last outputs, [N, outputs]."""
        for i in reversed(range(len(self._weights))):
            x = self._inputs[i]
            torch.mm(gradient.t(), x, out=self._weight_gradients[i])
            torch.sum(gradient, 0, out=self._bias_gradients[i])
            if i > 0:
                gradient = torch.ops.aten.threshold_backward(gradient @ self._weights[i], x, 0)


def linear_chain(modules: Sequence[nn.Module]) -> list[nn.Linear] | None:
    """Return the linear layers if the modules are linear layers with ReLU between them, else None."""
    layers, between = modules[::2], modules[1::2]
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    if len(linear) < len(layers) or len(layers) == len(between) or any(type(x) is not nn.ReLU for x in between):
        return None
    return linear
