"""Attention with entmax-1.5 weights."""

from __future__ import annotations

import contextlib
import math
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from automl_ext import _native
from automl_ext.ops._checks import (
    autocast_enabled,
    broadcasts,
    check_bool,
    check_float_tensor,
    check_number,
    compute_dtype,
    describe,
    is_dense,
    wrong_device,
)
from automl_ext.ops.entmax import entmax15

OP = "entmax15_attention"
MOST_SCORES = 2**24  # of the composition at a time: 64 MB in float32


def entmax15_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute ``entmax15(scale · query keyᵀ + mask) value``: attention whose weights are exactly 0 for most keys.

    Shapes, broadcasting and masks are those of :func:`torch.nn.functional.scaled_dot_product_attention`. On a CPU, the
    matrix of weights is never stored: memory is linear in the lengths. Results are bitwise equal for any number of
    threads. On other devices, this is a composition of :func:`entmax15` and products of matrices.

    A query that sees no key has the result 0. A NaN or +inf score, and an infinity in a query, make the result of the
    query NaN. On a CPU, keys and values that a bool mask hides, and values of weight 0, have no effect even if they are
    NaN or infinite. In the composition, such a NaN or infinity spreads.

    Args:
        query: [..., L, d].
        key: [..., S, d].
        value: [..., S, d_v].
        attn_mask: bool (True: the query sees the key), or floats that are added to the scores; a shape that broadcasts
            to [..., L, S].
        is_causal: whether query i sees the keys 0, …, i only. Not together with a mask.
        scale: factor of the scores; None: 1/√d.
        enable_gqa: whether several heads (dim −3) of ``query``, one after the other, share a head of ``key`` and
            ``value``.

    Returns:
        [..., L, d_v] in the dtype of ``query``, or under autocast in the dtype of autocast.

    Raises:
        TypeError: an argument is not a float tensor, dtypes differ, or the mask is neither bool nor float.
        ValueError: shapes or devices do not fit together, or ``is_causal`` with a mask.
    """
    query, key, value, factor = _checked(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    mask_needs = attn_mask is not None and attn_mask.requires_grad and torch.is_grad_enabled()
    # Also without a kernel for the device: an error, if the backend is "native".
    if _native.use_native(query) and query.device.type in ("cpu", "meta") and not mask_needs:
        out: Tensor = torch.ops.automl_ext.entmax15_attention.default(query, key, value, attn_mask, is_causal, factor)
        return out
    with torch.autocast(query.device.type, enabled=False) if autocast_enabled(query) else contextlib.nullcontext():
        return attention_in_blocks(query, key, value, attn_mask, is_causal, factor)


def register() -> None:
    """Add ``attn_implementation="entmax15"`` to the models of the package transformers.

    Raises:
        ModuleNotFoundError: transformers is missing; the message names the extra.
    """
    try:
        from automl_ext.ops import _transformers
    except ModuleNotFoundError as error:
        text = f'attn_implementation="entmax15" needs {error.name}: pip install "automl_ext[transformers]"'
        raise ModuleNotFoundError(text, name=error.name) from None
    _transformers.register(entmax15_attention)


def attention_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
) -> Tensor:
    """Compose the op for a block of queries at a time, so that memory is linear in the number of queries.

    The backward pass computes the scores of a block again.
    """
    length, keys = query.shape[-2], key.shape[-2]
    rows = max(1, MOST_SCORES // max(1, query.shape[:-2].numel() * keys))
    if rows >= length:
        return attention_reference(query, key, value, attn_mask, is_causal, scale)
    results = []
    for first in range(0, length, rows):
        q, k, v, mask = query[..., first : first + rows, :], key, value, attn_mask
        if is_causal:
            k, v = key[..., : first + rows, :], value[..., : first + rows, :]
            mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(first)
        elif mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask[..., first : first + rows, :]
        results.append(checkpoint(_block, _native.current_backend(), q, k, v, mask, scale, use_reentrant=False))
    return torch.cat(results, -2)


def _block(backend: str, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, scale: float) -> Tensor:
    """Compute a block by the backend of the forward pass: another may be selected when the backward pass repeats it."""
    same = backend == _native.current_backend()
    with contextlib.nullcontext() if same else _native.backend(backend):
        return attention_reference(query, key, value, attn_mask, False, scale)


def attention_reference(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
) -> Tensor:
    """Compute the op by torch's own products, with its arguments: equal batch dims, except for groups of heads."""
    weights = attention_weights(query, key, attn_mask, is_causal, scale)
    return (weights @ _per_head(value, query).to(weights.dtype)).to(query.dtype)


def attention_weights(query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float) -> Tensor:
    """Return the weights of :func:`attention_reference`, [..., L, S] in float64 or float32."""
    dtype = compute_dtype(query)
    scores = (query.to(dtype) * scale) @ _per_head(key, query).to(dtype).mT
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask.to(dtype)
    return entmax15(scores, -1)


def _per_head(x: Tensor, query: Tensor) -> Tensor:
    """Return a key or value with as many heads as the query."""
    if query.ndim == 2 or x.shape[-3] == query.shape[-3]:
        return x
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], -3)


def _checked(
    query: object, key: object, value: object, attn_mask: object, is_causal: bool, scale: object, enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the tensors as the op takes them, in one dtype and with equal batch dims, and the scale."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_float_tensor(x, name, OP)
        if cast(Tensor, x).ndim < 2:
            raise ValueError(f"{OP}: {name}: expected shape [..., length, width], got {describe(x)}")
    check_bool(is_causal, "is_causal", OP)
    check_bool(enable_gqa, "enable_gqa", OP)
    q, k, v = _one_dtype(cast(Tensor, query), cast(Tensor, key), cast(Tensor, value))
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"{OP}: key: expected the width of query, {q.shape[-1]}, got {describe(k)}")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(f"{OP}: value: expected the length of key, {k.shape[-2]}, got {describe(v)}")
    if scale is None:
        factor = q.shape[-1] ** -0.5 if q.shape[-1] else 1.0
    else:
        factor = check_number(scale, "scale", OP, -math.inf, math.inf)
    q, k, v = _one_batch(q, k, v, enable_gqa)
    if attn_mask is not None:
        _check_mask(attn_mask, q, (*q.shape[:-1], k.shape[-2]), is_causal)
    return q, k, v, factor


def _one_dtype(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors in one dtype; under autocast in its dtype, except for float64."""
    if autocast_enabled(q):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x if x.dtype == torch.float64 else x.to(dtype) for x in (q, k, v))
    for name, x in (("key", k), ("value", v)):
        if x.dtype != q.dtype:
            raise TypeError(f"{OP}: {name}: expected {q.dtype} as query, got {x.dtype}")
        if x.device != q.device:
            raise wrong_device(x, name, OP, q)
    return q, k, v


def _one_batch(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of the tensors with equal dims before the last two, except for groups of heads."""
    if q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return q, k, v
    heads: tuple[int, ...] = ()  # with groups, the heads are not broadcast
    if enable_gqa:
        if min(q.ndim, k.ndim, v.ndim) < 3:
            raise ValueError(f"{OP}: enable_gqa: expected tensors with heads, got {describe(q)} and {describe(k)}")
        for name, x in (("key", k), ("value", v)):
            if not x.shape[-3] or q.shape[-3] % x.shape[-3]:
                raise ValueError(
                    f"{OP}: {name}: expected a number of heads that divides that of query, {q.shape[-3]}, "
                    f"got {describe(x)}"
                )
        if k.shape[-3] != v.shape[-3]:
            k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
        heads = (k.shape[-3],)
    before = -2 - len(heads)
    try:
        batch = torch.broadcast_shapes(*(x.shape[:before] for x in (q, k, v)))  # type: ignore[no-untyped-call]
    except RuntimeError:
        hint = "" if enable_gqa else "; with fewer heads than query, use enable_gqa=True"
        raise ValueError(
            f"{OP}: key, value: expected batch dims that broadcast with those of query, got {tuple(q.shape)}, "
            f"{tuple(k.shape)} and {tuple(v.shape)}{hint}"
        ) from None
    q, k, v = (x.expand(*batch, *x.shape[before:]) for x in (q, k, v))
    return q, k, v


def _check_mask(mask: object, q: Tensor, shape: tuple[int, ...], is_causal: bool) -> None:
    if is_causal:
        raise ValueError(f"{OP}: is_causal: expected False with an attn_mask, got True")
    known = isinstance(mask, Tensor) and is_dense(mask) and mask.dtype in (torch.bool, torch.float32, q.dtype)
    if not isinstance(mask, Tensor) or not known:
        other = "" if q.dtype == torch.float32 else f" or {str(q.dtype).removeprefix('torch.')}"
        raise TypeError(f"{OP}: attn_mask: expected a dense bool or float32{other} tensor, got {describe(mask)}")
    if mask.device != q.device:
        raise wrong_device(mask, "attn_mask", OP, q)
    if not broadcasts(mask, shape):
        raise ValueError(f"{OP}: attn_mask: expected a shape that broadcasts to {shape}, got {describe(mask)}")
