"""``mlp`` and ``gru_cell`` for the conformance suite. The size is the number of rows (dim 0) or inputs (−1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from op_spec import OpSpec
from torch import Tensor

import automl_ext

F64 = torch.float64
HIDDEN, OUTPUTS, STATE = 7, 5, 6
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": F.elu, "gelu": F.gelu, "silu": F.silu}


def _rows(size: int, dim: int, last: int = 4) -> list[int]:
    return [3, 2, size] if dim == -1 else [size, 2, last]


def _mlp_spec(activation: str, networks: tuple[int, ...] = (), stacked_x: bool = False, last: bool = False) -> OpSpec:
    code = list(ACTIVATIONS).index(activation)
    function = ACTIVATIONS[activation]

    def make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=F64)

        x = randn(*(networks if stacked_x else ()), *_rows(size, dim))
        inputs = x.shape[-1]
        first = randn(*networks, HIDDEN, inputs) / max(inputs, 1) ** 0.5
        return [x, first, randn(*networks, OUTPUTS, HIDDEN), randn(*networks, HIDDEN), randn(*networks, OUTPUTS)], {}

    def call(tensors: Sequence[Tensor], dim: int) -> Tensor:
        x, *parameters = tensors
        return automl_ext.mlp(x, parameters[:2], parameters[2:], activation, activate_last=last, stacked_x=stacked_x)

    def native(tensors: Sequence[Tensor], dim: int) -> list[tuple[str, tuple]]:
        x, *parameters = tensors
        weights, biases = parameters[:2], parameters[2:]
        arguments = (x, weights, biases, code, last, stacked_x)
        detached = [y.detach() for y in tensors]
        y, kept = torch.ops.automl_ext._mlp_trained.default(
            detached[0], detached[1:3], detached[3:], code, last, stacked_x
        )
        grad = torch.randn_like(y)
        backward = (grad, detached[0], detached[1:3], kept, y, code, last, stacked_x, True, True, True)
        return [("mlp", arguments), ("_mlp_backward", backward)]

    def eager(tensors: Sequence[Tensor], dim: int) -> Tensor:
        x, *parameters = tensors
        ys = []
        for e in range(networks[0] if networks else 1):
            w0, w1, b0, b1 = (p[e] if networks else p for p in parameters)
            y = F.linear(function(F.linear(x[e] if stacked_x else x, w0, b0)), w1, b1)
            ys.append(function(y) if last else y)
        return torch.stack(ys) if networks else ys[0]

    name = "_".join(["mlp", activation, *(["stack"] if networks else []), *(["last"] if last else [])])
    return _spec(name, make, call, native, eager)


def _spec(name: str, make: Callable, call: Callable, native: Callable, eager: Callable) -> OpSpec:
    return OpSpec(name, make, call, native, eager, lower_precision=True, dims=(0, -1), rowwise=False)


def _gru_make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    shape = _rows(size, dim)
    inputs = shape[-1]
    sizes = [shape, [*shape[:-1], STATE], [3 * STATE, inputs], [3 * STATE, STATE], [3 * STATE], [3 * STATE]]
    tensors = [torch.randn(s, generator=generator, dtype=F64) for s in sizes]
    tensors[2] /= max(inputs, 1) ** 0.5
    return tensors, {}


def _gru_call(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return automl_ext.gru_cell(*tensors)


def _gru_native(tensors: Sequence[Tensor], dim: int) -> list[tuple[str, tuple]]:
    detached = [y.detach() for y in tensors]
    y, kept = torch.ops.automl_ext._gru_cell_trained.default(*detached)
    backward = (torch.randn_like(y), *detached[:4], kept, True, True, True)
    return [("gru_cell", tuple(tensors)), ("_gru_cell_backward", backward)]


def _gru_eager(tensors: Sequence[Tensor], dim: int) -> Tensor:
    x, h, *parameters = tensors
    return torch.gru_cell(x.flatten(0, -2), h.flatten(0, -2), *parameters).reshape(h.shape)


MLP_SPECS = [
    _mlp_spec("tanh"),
    _mlp_spec("relu"),
    _mlp_spec("elu", networks=(2,)),
    _mlp_spec("gelu", last=True),
    _mlp_spec("silu", networks=(3,), stacked_x=True),
    _mlp_spec("tanh", networks=(2,), last=True),
    _spec("gru_cell", _gru_make, _gru_call, _gru_native, _gru_eager),
]
