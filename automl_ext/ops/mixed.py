"""Mixed-op aggregation: the weighted sum of the candidate operations of a supernet, computed without stacking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import (
    autocast_enabled,
    check_float_tensor,
    describe,
    is_dense,
    is_sequence,
    promoted,
    shown,
    wrong_device,
)
from automl_ext.ops._mixed_reference import mixed_op_reference


def mixed_op(inputs: Sequence[Tensor | None], weights: Tensor) -> Tensor:
    """Compute the weighted sum y = Σₖ weights[k]·inputs[k].

    Args:
        inputs: K tensors of the same shape, dtype and device. None stands for an operation that was not run: its
            weight counts as 0 and gets gradient 0.
        weights: [K], in the dtype of the inputs, or float32 with half-precision inputs. An input of weight 0 is not
            read in the forward pass, but its weight gets the gradient ⟨grad, xₖ⟩.

    Returns:
        y, in the dtype of the inputs and the memory format of the first input.

    Raises:
        ValueError: all inputs are None, or lengths, shapes or devices differ.
        TypeError: an input is not a float tensor, or dtypes differ. Under autocast they are promoted instead.
    """
    if type(inputs) in (list, tuple) and (direct := _direct(inputs, weights, "mixed_op")) is not None:
        return direct
    return _aggregate(_as_list(inputs, "inputs", "mixed_op"), weights, "mixed_op")


def cell_aggregate(inputs: Sequence[Sequence[Tensor | None]], weights: Tensor) -> Tensor:
    """Compute the value of a node, the sum of :func:`mixed_op` over its edges: y = Σₑ Σₖ weights[e, k]·inputs[e][k].

    Results and errors are those of :func:`mixed_op`.

    Args:
        inputs: E sequences (one per incoming edge) of K tensors or None.
        weights: [E, K].
    """
    if not isinstance(weights, Tensor) or not is_dense(weights) or weights.ndim != 2:
        raise TypeError(f"cell_aggregate: weights: expected a 2-dim float tensor, got {describe(weights)}")
    edges = [
        _as_list(edge, f"inputs[{e}]", "cell_aggregate")
        for e, edge in enumerate(_as_list(inputs, "inputs", "cell_aggregate"))
    ]
    lengths = [len(edge) for edge in edges]
    if lengths != [weights.shape[1]] * weights.shape[0]:
        raise ValueError(
            f"cell_aggregate: inputs: expected {weights.shape[0]} edges of {weights.shape[1]} operations as in "
            f"weights, got edges of lengths {shown(lengths)}"
        )
    flat, weights = [x for edge in edges for x in edge], weights.reshape(-1)
    direct = _direct(flat, weights, "cell_aggregate")
    return _aggregate(flat, weights, "cell_aggregate") if direct is None else direct


def _direct(inputs: Sequence[Tensor | None], weights: Tensor, op: str) -> Tensor | None:
    """Return the result of the compiled call, which checks its arguments; None if the dispatcher must be called."""
    if not _native.calls_directly(weights):
        return None
    try:
        direct: Tensor | None = _native.autograd.mixed_op(inputs, weights)
    except Exception:  # also what a saved-tensor hook raises
        _checked(list(inputs), weights, op)
        raise
    return direct


def _as_list(values: object, name: str, op: str) -> list[Any]:
    """Return the elements of a sequence."""
    if not is_sequence(values):
        raise TypeError(f"{op}: {name}: expected a sequence, got {describe(values)}")
    return list(values)  # type: ignore[call-overload,no-any-return]


def _aggregate(inputs: list[Tensor | None], weights: Tensor, op: str) -> Tensor:
    given, weights, positions = _checked(inputs, weights, op)
    if _native.use_native(given[0]):
        y: Tensor = torch.ops.automl_ext.mixed_op.default(given, weights, positions)
        return y
    return mixed_op_reference(given, weights, positions)


def _checked(inputs: list[Tensor | None], weights: Tensor, op: str) -> tuple[list[Tensor], Tensor, list[int]]:
    """Return the tensors of ``inputs`` and the weights, promoted under autocast, and the places of the tensors."""
    if not isinstance(weights, Tensor) or not is_dense(weights) or weights.ndim != 1:
        raise TypeError(f"{op}: weights: expected a 1-dim float tensor, got {describe(weights)}")
    check_float_tensor(weights, "weights", op)
    if len(inputs) != weights.shape[0]:
        raise ValueError(f"{op}: inputs: expected as many as weights ({weights.shape[0]}), got {len(inputs)}")
    given: list[Tensor] = []
    positions: list[int] = []
    for k, x in enumerate(inputs):
        if x is not None:
            given.append(x)
            positions.append(k)
    if not given:
        raise ValueError(f"{op}: inputs: expected at least one tensor, got {'only None' if len(inputs) else 'none'}")
    given = _check_alike(given, positions, op)
    if weights.dtype != given[0].dtype:
        weights = _check_weights_dtype(weights, given[0], op)
    if weights.device != given[0].device:
        raise wrong_device(weights, "weights", op, given[0])
    return given, weights, positions


def _check_alike(given: list[Tensor], positions: list[int], op: str) -> list[Tensor]:
    """Check that the inputs have one shape, dtype and device; under autocast, return them promoted to one dtype."""
    first = given[0]
    check_float_tensor(first, f"inputs[{positions[0]}]", op)
    for k, x in zip(positions, given, strict=True):
        if x is first:
            continue
        check_float_tensor(x, f"inputs[{k}]", op)
        if x.shape != first.shape:
            raise ValueError(
                f"{op}: inputs[{k}]: expected shape {tuple(first.shape)} as inputs[{positions[0]}], "
                f"got {tuple(x.shape)}"
            )
        if x.device != first.device:
            raise wrong_device(x, f"inputs[{k}]", op, first)
        if x.dtype != first.dtype:
            if autocast_enabled(first):  # e.g. a float32 skip connection and a bfloat16 convolution
                return list(promoted(tuple(given)))
            raise TypeError(f"{op}: inputs[{k}]: expected {first.dtype} as inputs[{positions[0]}], got {x.dtype}")
    return given


def _check_weights_dtype(weights: Tensor, x: Tensor, op: str) -> Tensor:
    """Check weights whose dtype differs from the dtype of the input x. Under autocast, return them converted."""
    half_input = x.dtype in (torch.float16, torch.bfloat16)
    if half_input and weights.dtype == torch.float32:
        return weights
    if autocast_enabled(x):
        return weights.to(torch.float32 if half_input else x.dtype)
    expected = f"{x.dtype} or torch.float32" if half_input else f"{x.dtype}"
    raise TypeError(f"{op}: weights: expected {expected} for {x.dtype} inputs, got {weights.dtype}")
