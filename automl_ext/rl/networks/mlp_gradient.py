"""The gradient of a multilayer perceptron, written out.

For 64 observations and layers of 256 half of an update's time is autograd's: its graph, and gradients that are made in
many places and copied into one. Here the products write where the optimiser reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLPGradient:
    """Linear layers with ReLU between them.

    Args:
        layers: first to last.
        gradient: where :meth:`backward` writes: each layer's weight and bias in turn, in one vector.
    """

    def __init__(self, layers: Sequence[nn.Linear], gradient: Tensor) -> None:
        parameters = [p.detach() for layer in layers for p in (layer.weight, layer.bias)]
        parts = gradient.split([p.numel() for p in parameters])
        views = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
        self._weights, self._biases = parameters[::2], parameters[1::2]
        self._weight_gradients, self._bias_gradients = views[::2], views[1::2]
        self._inputs: list[Tensor] = []  # of each layer

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs] → [N, outputs]."""
        self._inputs = []
        for weight, bias in zip(self._weights, self._biases, strict=True):
            if self._inputs:
                x = x.relu_()
            self._inputs.append(x)
            x = torch.addmm(bias, x, weight.t())
        return x

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """From the gradient of the last :meth:`forward`'s outputs, [N, outputs], to that of all parameters."""
        for i in reversed(range(len(self._weights))):
            x = self._inputs[i]
            torch.mm(gradient.t(), x, out=self._weight_gradients[i])
            torch.sum(gradient, 0, out=self._bias_gradients[i])
            if i > 0:
                gradient = torch.ops.aten.threshold_backward(gradient @ self._weights[i], x, 0)


def linear_chain(modules: Sequence[nn.Module]) -> list[nn.Linear] | None:
    """The linear layers, where the modules are linear layers with ReLU between them and nothing else."""
    layers, between = modules[::2], modules[1::2]
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    if len(linear) < len(layers) or len(layers) == len(between) or any(type(x) is not nn.ReLU for x in between):
        return None
    return linear
