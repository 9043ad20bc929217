"""``entmax15_attention`` for the conformance suite. The size is the number of queries (dim 0) or keys (−1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from op_spec import OpSpec
from torch import Tensor

import automl_ext
from automl_ext.ops.entmax._reference import _entmax15_reference

F64 = torch.float64
WIDTH, VALUE_WIDTH, OTHER_LENGTH, SCALE = 3, 2, 7, 1.0


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False, scale: float = SCALE
) -> Tensor:
    """Attention with all weights in memory, in float32 for half precision, under autocast from its dtype."""
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x if x.dtype == F64 else x.to(dtype) for x in (q, k, v))
    wide = F64 if q.dtype == F64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        if q.shape[-3] != k.shape[-3]:
            k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
        scores = q.to(wide) @ k.to(wide).mT * scale
        if is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.to(wide)
        return (_entmax15_reference(scores, -1) @ v.to(wide)).to(q.dtype)


def _spec(name: str, heads: int = 2, key_heads: int = 2, is_causal: bool = False, mask: str = "") -> OpSpec:
    def make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
        queries, keys = (size, OTHER_LENGTH) if dim == 0 else (OTHER_LENGTH, size)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=F64)

        tensors = [randn(2, heads, queries, WIDTH), randn(2, key_heads, keys, WIDTH)]
        tensors.append(randn(2, key_heads, keys, VALUE_WIDTH))
        if mask == "bool":  # some queries see no key
            return tensors, {"mask": torch.rand(2, 1, queries, keys, generator=generator) < 0.4}
        if mask == "added":
            return tensors, {"mask": torch.randn(queries, keys, generator=generator)}
        return tensors, {}

    def call(tensors: Sequence[Tensor], dim: int, mask: Tensor | None = None) -> Tensor:
        return automl_ext.entmax15_attention(
            *tensors, mask, is_causal=is_causal, scale=SCALE, enable_gqa=heads != key_heads
        )

    def native(tensors: Sequence[Tensor], dim: int, mask: Tensor | None = None) -> list[tuple[str, tuple]]:
        detached = [x.detach() for x in tensors]
        rest: tuple[Any, ...] = (mask, is_causal, SCALE)
        out, *saved = torch.ops.automl_ext._entmax15_attention_trained.default(*detached, *rest)
        backward = (torch.randn_like(out), *detached, *rest, *saved)
        return [("entmax15_attention", (*tensors, *rest)), ("_entmax15_attention_backward", backward)]

    def eager(tensors: Sequence[Tensor], dim: int, mask: Tensor | None = None) -> Tensor:
        q, k, v = tensors
        return eager_attention(q, k, v, mask, is_causal)

    return OpSpec(name, make, call, native, eager, lower_precision=True, dims=(0, -1), rowwise=False)


ATTENTION_SPECS = [
    _spec("entmax15_attention"),
    _spec("entmax15_attention_causal_groups", heads=4, is_causal=True),
    _spec("entmax15_attention_bool_mask", mask="bool"),
    _spec("entmax15_attention_added_mask", key_heads=1, mask="added"),
]
