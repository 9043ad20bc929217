"""Cases of multilayer perceptrons and of the GRU cell, beside ``nn.Sequential`` and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import automl_ext as a
from automl_ext.bench.cases.case import Case, Peer
from automl_ext.ops.networks import ACTIVATIONS

TWINS = 2
COMPILED = (8, 256)  # batch sizes at which the compiled network is measured: compiling takes seconds


def mlp_cases(activation: str) -> Callable[..., list[Case]]:
    """Return the builder of the cases with an activation; their shapes are batch × inputs × hidden layers × outputs."""

    def build(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: dict[str, Any]) -> list[Case]:
        networks = (1, TWINS) if activation != "elu" else (1,)
        return [_mlp_case(activation, shape, dtype, device, count) for count in networks]

    return build


def _mlp_case(activation: str, shape: tuple[int, ...], dtype: torch.dtype, device: str, networks: int) -> Case:
    batch, *sizes = shape
    layers, stack = len(sizes) - 1, [networks] * (networks > 1)
    function = ACTIVATIONS[activation][0]

    def make() -> list[Tensor]:
        """Return the weights, the biases and x."""
        weights = [torch.randn(*stack, o, i, device=device) / i**0.5 for i, o in pairwise(sizes)]
        biases = [torch.randn(*stack, o, device=device) for o in sizes[1:]]
        return [y.to(dtype) for y in (*weights, *biases, torch.randn(batch, sizes[0], device=device))]

    def ours(*tensors: Tensor) -> Tensor:
        return a.mlp(tensors[-1], tensors[:layers], tensors[layers:-1], activation)

    def one(weights: Sequence[Tensor], biases: Sequence[Tensor], y: Tensor) -> Tensor:
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            y = nn.functional.linear(function(y) if i else y, weight, bias)
        return y

    def eager(*tensors: Tensor) -> Tensor:
        if not stack:
            return one(tensors[:layers], tensors[layers:-1], tensors[-1])
        each = zip(*(y.unbind() for y in tensors[:-1]), strict=True)
        return torch.stack([one(p[:layers], p[layers:], tensors[-1]) for p in each])

    peers = {}
    if not stack:
        peers["nn.Sequential"] = Peer(lambda tensors: _sequential(tensors, layers, activation), trained=True)
        if activation != "elu" and dtype == torch.float32 and device == "cpu":
            peers["numpy"] = Peer(lambda tensors: _numpy(tensors, layers, activation), trained=False)
    return Case(
        f"mlp_{activation}" + ("_twin" if stack else ""),
        shape,
        dtype,
        make,
        ours,
        eager,
        lambda tensors, at: [*tensors[:-1], tensors[-1][at]],
        lambda y, at: y[..., at, :],
        batch,
        peers=peers,
        trained=2 * layers,
        compared=0,  # gradients of parameters are sums over all rows
        saved=lambda inputs, outputs: inputs,
        not_compiled="" if batch in COMPILED else f"measured for batches of {COMPILED[0]} and {COMPILED[1]} only",
    )


def _sequential(tensors: Sequence[Tensor], layers: int, activation: str) -> Callable[[], Tensor]:
    modules: list[nn.Module] = []
    for weight, bias in zip(tensors[:layers], tensors[layers:-1], strict=True):
        outputs, inputs = weight.shape
        layer = nn.Linear(inputs, outputs, device="meta")
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias  # type: ignore[assignment]  # leaves, whose gradients are measured
        modules += [layer, ACTIVATIONS[activation][1]()]
    network = nn.Sequential(*modules[:-1])
    return lambda: network(tensors[-1])


def _numpy(tensors: Sequence[Tensor], layers: int, activation: str) -> Callable[[], Any]:
    arrays = [y.detach().numpy() for y in tensors]
    weights, biases = [w.T for w in arrays[:layers]], arrays[layers:-1]

    def run() -> Any:
        y = arrays[-1]
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if i:
                y = np.tanh(y) if activation == "tanh" else np.maximum(y, 0)
            y = y @ weight + bias
        return y

    return run


def gru_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: dict[str, Any]) -> list[Case]:
    """Return the GRU cell; the shape is batch × units, with as many inputs as units."""
    batch, n = shape
    sizes = [(3 * n, n), (3 * n, n), (3 * n,), (3 * n,), (batch, n), (batch, n)]

    def make() -> list[Tensor]:
        return [torch.randn(size, device=device).to(dtype) / (n**0.5 if size[0] == 3 * n else 1) for size in sizes]

    def cell(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda w_ih, w_hh, b_ih, b_hh, x, h: function(x, h, w_ih, w_hh, b_ih, b_hh)

    return [
        Case(
            "gru_cell",
            shape,
            dtype,
            make,
            cell(a.gru_cell),
            cell(torch.gru_cell),
            lambda tensors, at: [*tensors[:4], *(y[at] for y in tensors[4:])],
            lambda y, at: y[at],
            batch,
            trained=6,
            compared=0,
            saved=lambda inputs, outputs: inputs,
        )
    ]
