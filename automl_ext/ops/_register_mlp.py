"""Python registrations of ``mlp`` and ``gru_cell``: fake tensors and vmap. Autocast is in ``csrc/mlp``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake, register_vmap

from automl_ext.ops._register_common import to_front

ops = torch.ops.automl_ext
SLOPE_KEPT = (3, 4)  # the codes of GELU and SiLU, as in csrc/mlp/mlp.h


def _is_batched(dims: Any) -> bool:
    return any(d is not None for d in dims)


# ---- mlp


def _result(x: Tensor, weights: list[Tensor], stacked_x: bool) -> Tensor:
    networks = weights[0].shape[:-2]
    return x.new_empty([*networks, *x.shape[1 if stacked_x else 0 : -1], weights[-1].shape[-2]])


def _kept(x: Tensor, weights: list[Tensor], activation: int, activate_last: bool, stacked_x: bool) -> Tensor:
    """Return the tensor that the forward pass keeps for the backward pass, see Call in csrc/mlp/mlp_cpu.cpp."""
    rows = math.prod(x.shape[1 if stacked_x else 0 : -1])
    count = sum(w.shape[-2] for w in weights[:-1])
    if activation in SLOPE_KEPT:
        count = count + sum(w.shape[-2] for w in (weights if activate_last else weights[:-1]))
    return x.new_empty([math.prod(weights[0].shape[:-2]) * rows * count])


def _batched_mlp(
    name: str,
    batch: int,
    in_dims: Any,
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    activation: int,
    activate_last: bool,
    stacked_x: bool,
) -> tuple[Any, int]:
    """Return the result of a batch and its batch dim. A batch of weights is computed as stacked networks."""
    call = getattr(ops, name).default
    of_x, of_weights, of_biases = in_dims[:3]
    parameters, dims = [*weights, *biases], [*of_weights, *of_biases]
    stack = weights[0].ndim - (of_weights[0] is not None) == 3
    if not _is_batched(dims):
        x = x.movedim(of_x, 1 if stacked_x else 0)
        return call(x, weights, biases, activation, activate_last, stacked_x), 1 if stack else 0
    parameters = [to_front(p, d, batch) for p, d in zip(parameters, dims, strict=True)]
    if of_x is not None or stack:
        x = to_front(x, of_x, batch)
        if stack:
            networks = parameters[0].shape[1]
            x = (x if stacked_x else x.unsqueeze(1).expand(-1, networks, *x.shape[1:])).flatten(0, 1)
            parameters = [p.flatten(0, 1) for p in parameters]
        stacked_x = True
    result = call(x, parameters[: len(weights)], parameters[len(weights) :], activation, activate_last, stacked_x)
    if stack:
        y = result[0] if isinstance(result, tuple) else result
        y = y.unflatten(0, (batch, -1))
        result = (y, result[1]) if isinstance(result, tuple) else y
    return result, 0


def _register_mlp() -> None:
    @register_fake("automl_ext::mlp")
    def _(
        x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: int, activate_last: bool, stacked_x: bool
    ) -> Tensor:
        return _result(x, weights, stacked_x)

    @register_fake("automl_ext::_mlp_trained")
    def _(
        x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: int, activate_last: bool, stacked_x: bool
    ) -> tuple[Tensor, Tensor]:
        return _result(x, weights, stacked_x), _kept(x, weights, activation, activate_last, stacked_x)

    @register_fake("automl_ext::_mlp_backward")
    def _(
        grad: Tensor,
        x: Tensor,
        weights: list[Tensor],
        kept: Tensor,
        y: Tensor | None,
        activation: int,
        activate_last: bool,
        stacked_x: bool,
        has_biases: bool,
        needs_x: bool,
        needs_parameters: bool,
    ) -> list[Tensor]:
        grads = [x.new_empty(x.shape)] if needs_x else []
        if needs_parameters:
            grads += [x.new_empty(w.shape) for w in weights]
            grads += [x.new_empty(w.shape[:-1]) for w in weights if has_biases]
        return grads

    @register_vmap("automl_ext::mlp")
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _batched_mlp("mlp", info.batch_size, in_dims, *args)

    @register_vmap("automl_ext::_mlp_trained")
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, None]]:
        result, dim = _batched_mlp("_mlp_trained", info.batch_size, in_dims, *args)
        return result, (dim, None)  # the batched backward does not read what is kept


# ---- gru_cell


def _batched_gru_cell(name: str, batch: int, in_dims: Any, *args: Tensor | None) -> Any:
    """Return the results of a batch, with the batch dim first."""
    call = getattr(ops, name).default
    x, h = (to_front(args[i], in_dims[i], batch) for i in (0, 1))  # type: ignore[arg-type]
    if not _is_batched(in_dims[2:]):
        return call(x, h, *args[2:])
    rest = [None if y is None else to_front(y, d, batch) for y, d in zip(args[2:], in_dims[2:], strict=True)]
    each = [call(x[i], h[i], *(y if y is None else y[i] for y in rest)) for i in range(batch)]
    if isinstance(each[0], tuple):
        return torch.stack([y for y, _ in each]), each[0][1]
    return torch.stack(each)


def _register_gru_cell() -> None:
    @register_fake("automl_ext::gru_cell")
    def _(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None) -> Tensor:
        return x.new_empty(h.shape)

    @register_fake("automl_ext::_gru_cell_trained")
    def _(
        x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return x.new_empty(h.shape), x.new_empty([math.prod(h.shape[:-1]), 4 * h.shape[-1]])

    @register_fake("automl_ext::_gru_cell_backward")
    def _(
        grad: Tensor,
        x: Tensor,
        h: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        kept: Tensor,
        has_biases: bool,
        needs_inputs: bool,
        needs_parameters: bool,
    ) -> list[Tensor]:
        shapes = [x.shape, h.shape] if needs_inputs else []
        if needs_parameters:
            shapes += [w_ih.shape, w_hh.shape] + [w_ih.shape[:1], w_ih.shape[:1]] * has_biases
        return [x.new_empty(shape) for shape in shapes]

    @register_vmap("automl_ext::gru_cell")
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _batched_gru_cell("gru_cell", info.batch_size, in_dims, *args), 0

    @register_vmap("automl_ext::_gru_cell_trained")
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, None]]:
        return _batched_gru_cell("_gru_cell_trained", info.batch_size, in_dims, *args), (0, None)


def register() -> None:
    """Register everything; called once, after the library is loaded."""
    _register_mlp()
    _register_gru_cell()
