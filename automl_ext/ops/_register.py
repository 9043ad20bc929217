"""Python registrations of the compiled ops: fake tensors, vmap batching rules and autocast dtypes.

Backward ops have no batching rule: a batched backward runs as a composite of ATen ops (csrc/common/autograd.h).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autocast, register_fake, register_vmap

from automl_ext.ops import _register_attention, _register_mlp, _register_policy, _register_returns, _register_steps
from automl_ext.ops._checks import check_dim, check_float_tensor, compute_dtype
from automl_ext.ops._register_common import contiguous_like, to_front

ops = torch.ops.automl_ext


def _without_dim(x: Tensor, dim: int) -> list[int]:
    shape = list(x.shape)
    if shape:
        del shape[dim]
    return shape


def _behind_batch(dim: int) -> int:
    return dim + 1 if dim >= 0 else dim


def _rows(x: Tensor) -> tuple[Tensor, bool]:
    """Return a batch of 0-dim tensors as rows of one element, and whether the samples were 0-dim."""
    return (x.unsqueeze(1), True) if x.ndim == 1 else (x, False)


# ---- entmax-1.5 and sparsemax


def _support_shape(x: Tensor, dim: int) -> list[int]:
    """Return the shape of the support, as in csrc/entmax/entmax.h; it is empty except for long rows on the CPU.

    A row takes 8 bytes for the count and, for each of 64 entries, 4 bytes for the index and one element.
    """
    length = x.shape[dim] if x.ndim else 1
    if x.device.type != "cpu" or not 256 < length < 2**31:
        return [0]
    return [x.numel() // length, 8 + 64 * (4 + x.element_size())]


def _register_entmax(name: str) -> None:
    forward, trained = getattr(ops, name).default, getattr(ops, f"_{name}_trained").default

    @register_fake(f"automl_ext::{name}")
    def _(x: Tensor, dim: int) -> Tensor:
        check_float_tensor(x, "X", name)
        check_dim(dim, x.ndim, name)
        return contiguous_like(x)

    @register_fake(f"automl_ext::_{name}_trained")
    def _(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        check_float_tensor(x, "X", name)
        check_dim(dim, x.ndim, name)
        return contiguous_like(x), x.new_empty(_support_shape(x, dim), dtype=torch.uint8)

    @register_fake(f"automl_ext::_{name}_backward")
    def _(grad: Tensor, p: Tensor, dim: int, support: Tensor | None = None) -> Tensor:
        return contiguous_like(p)

    @register_vmap(f"automl_ext::{name}")
    def _(info: Any, in_dims: Any, x: Tensor, dim: int) -> tuple[Tensor, int]:
        x, scalar = _rows(x.movedim(in_dims[0], 0))
        p = forward(x, 1 if scalar else _behind_batch(dim))
        return p.squeeze(1) if scalar else p, 0

    @register_vmap(f"automl_ext::_{name}_trained")
    def _(info: Any, in_dims: Any, x: Tensor, dim: int) -> tuple[tuple[Tensor, Tensor], tuple[int, None]]:
        x, scalar = _rows(x.movedim(in_dims[0], 0))
        p, support = trained(x, 1 if scalar else _behind_batch(dim))
        return (p.squeeze(1) if scalar else p, support), (0, None)  # the batched backward does not read the support


# ---- Alpha-entmax, normmax, budget-sparsemax


def _register_bisect_map() -> None:
    forward = ops.bisect_map.default

    @register_fake("automl_ext::bisect_map")
    def _(x: Tensor, value: float, parameter: Tensor | None, map: int, dim: int) -> Tensor:
        return contiguous_like(x)

    @register_fake("automl_ext::_bisect_map_backward")
    def _(
        grad: Tensor, p: Tensor, value: float, parameter: Tensor | None, map: int, dim: int, needs_parameter: bool
    ) -> tuple[Tensor, Tensor]:
        shape = list(p.shape) if needs_parameter else [0]
        if needs_parameter and shape:
            shape[dim] = 1
        return contiguous_like(p), p.new_empty(shape, dtype=compute_dtype(p))

    @register_vmap("automl_ext::bisect_map")
    def _(
        info: Any, in_dims: Any, x: Tensor, value: float, parameter: Tensor | None, map: int, dim: int
    ) -> tuple[Tensor, int]:
        batch = info.batch_size
        x, scalar = _rows(to_front(x, in_dims[0], batch))
        if parameter is not None:
            parameter, _ = _rows(to_front(parameter, in_dims[2], batch))
        p = forward(x, value, parameter, map, 1 if scalar else _behind_batch(dim))
        return p.squeeze(1) if scalar else p, 0


# ---- Gumbel sampling. Under vmap each sample has its own seed and counts its elements from 0, as in a loop.


def _register_gumbel(name: str) -> None:
    forward = getattr(ops, name).default

    @register_fake(f"automl_ext::{name}")
    def _(
        logits: Tensor,
        seed: Tensor,
        tau: float,
        tau_tensor: Tensor | None,
        dim: int,
        hard: bool,
        return_index: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        index_shape = _without_dim(logits, dim) if hard or return_index else [0]
        return (
            contiguous_like(logits),
            contiguous_like(logits) if hard else logits.new_empty([0]),
            logits.new_empty(index_shape, dtype=torch.int64),
        )

    @register_fake(f"automl_ext::_{name}_backward")
    def _(
        grad: Tensor, soft: Tensor, tau: float, tau_tensor: Tensor | None, dim: int, tau_needs: bool
    ) -> tuple[Tensor, Tensor]:
        if tau_tensor is None or not tau_needs:
            return contiguous_like(soft), soft.new_empty([0])
        return contiguous_like(soft), contiguous_like(tau_tensor)

    @register_vmap(f"automl_ext::{name}")
    def _(
        info: Any,
        in_dims: Any,
        logits: Tensor,
        seed: Tensor,
        tau: float,
        tau_tensor: Tensor | None,
        dim: int,
        hard: bool,
        return_index: bool,
    ) -> Any:
        batch = info.batch_size
        x, scalar = _rows(to_front(logits, in_dims[0], batch))
        seed = to_front(seed, in_dims[1], batch)
        if tau_tensor is not None:
            tau_tensor = to_front(tau_tensor, in_dims[3], batch)
        y, soft, index = forward(x, seed, tau, tau_tensor, 1 if scalar else _behind_batch(dim), hard, return_index)
        if scalar:
            y, soft = y.squeeze(1), soft.squeeze(1) if hard else soft
        return (y, soft, index), (0, 0 if hard else None, 0 if hard or return_index else None)


def _register_gumbel_argmax() -> None:
    @register_fake("automl_ext::gumbel_argmax")
    def _(logits: Tensor, seed: Tensor, dim: int) -> Tensor:
        return logits.new_empty(_without_dim(logits, dim), dtype=torch.int64)

    @register_vmap("automl_ext::gumbel_argmax")
    def _(info: Any, in_dims: Any, logits: Tensor, seed: Tensor, dim: int) -> tuple[Tensor, int]:
        batch = info.batch_size
        x, scalar = _rows(to_front(logits, in_dims[0], batch))
        return ops.gumbel_argmax.default(x, to_front(seed, in_dims[1], batch), 1 if scalar else _behind_batch(dim)), 0


# ---- mixed op


def _register_mixed_op() -> None:
    @register_fake("automl_ext::mixed_op")
    def _(inputs: list[Tensor], weights: Tensor, positions: list[int]) -> Tensor:
        return torch.empty_like(inputs[0])

    @register_fake("automl_ext::_mixed_op_backward")
    def _(
        grad: Tensor, inputs: list[Tensor], weights: Tensor, positions: list[int], input_needs: list[bool]
    ) -> tuple[list[Tensor], Tensor]:
        like = inputs[0] if inputs else grad
        grads = [torch.empty_like(like) for needed in input_needs if needed]
        return grads, contiguous_like(weights) if inputs else weights.new_empty([0])

    # No kernel takes separate weights for each sample, so the batch is a loop.
    @register_vmap("automl_ext::mixed_op")
    def _(info: Any, in_dims: Any, inputs: list[Tensor], weights: Tensor, positions: list[int]) -> tuple[Tensor, int]:
        batch = info.batch_size
        xs = [to_front(x, d, batch) for x, d in zip(inputs, in_dims[0], strict=True)]
        if in_dims[1] is None:
            return ops.mixed_op.default(xs, weights, positions), 0
        ws = to_front(weights, in_dims[1], batch)
        return torch.stack([ops.mixed_op.default([x[b] for x in xs], ws[b], positions) for b in range(batch)]), 0


def register() -> None:
    """Register everything; called once, after the library is loaded."""
    _register_entmax("entmax15")
    _register_entmax("sparsemax")
    _register_bisect_map()
    _register_gumbel("gumbel_softmax")
    _register_gumbel("gumbel_entmax15")
    _register_gumbel_argmax()
    _register_mixed_op()
    _register_returns.register()
    _register_mlp.register()
    _register_attention.register()
    _register_policy.register()
    _register_steps.register()
    # float32 under autocast, as torch.softmax. mixed_op and the returns keep the dtype of their inputs.
    for name in ("entmax15", "sparsemax", "bisect_map", "gumbel_softmax", "gumbel_entmax15", "gumbel_argmax"):
        for device in ("cpu", "cuda"):
            register_autocast(f"automl_ext::{name}", device, torch.float32)
