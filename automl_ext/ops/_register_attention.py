"""Python registrations of ``entmax15_attention``: fake tensors and vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake, register_vmap

from automl_ext.ops._checks import compute_dtype
from automl_ext.ops._register_common import contiguous_like, to_front

ops = torch.ops.automl_ext
SAVED = 64  # kAttentionSaved of csrc/attention/attention.h


def _batched(name: str, batch: int, in_dims: Any, *args: Any) -> Any:
    """Return the result for a batch in the first dim of all tensors."""
    query, key, value = (to_front(x, d, batch) for x, d in zip(args[:3], in_dims[:3], strict=True))
    mask, is_causal, scale = args[3:]
    if mask is not None and in_dims[3] is not None:
        mask = mask.movedim(in_dims[3], 0)
        mask = mask.reshape(batch, *[1] * (query.ndim - mask.ndim), *mask.shape[1:])
    if query.ndim == 3:  # the batch must not be taken for heads, whose number may differ
        mask = mask if mask is None or mask.ndim < 3 else mask.unsqueeze(1)
        results = getattr(ops, name).default(*(x.unsqueeze(1) for x in (query, key, value)), mask, is_causal, scale)
        return tuple(x.squeeze(1) for x in results) if isinstance(results, tuple) else results.squeeze(1)
    return getattr(ops, name).default(query, key, value, mask, is_causal, scale)


def register() -> None:
    """Register everything; called once, after the library is loaded."""

    @register_fake("automl_ext::entmax15_attention")
    def _(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float) -> Tensor:
        return query.new_empty([*query.shape[:-1], value.shape[-1]])

    @register_fake("automl_ext::_entmax15_attention_trained")
    def _(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        dtype = compute_dtype(query)
        rows, saved = query.shape[:-1], [*query.shape[:-1], SAVED]
        return (
            query.new_empty([*rows, value.shape[-1]]),
            query.new_empty(rows, dtype=dtype),
            query.new_empty(rows, dtype=torch.int32),
            query.new_empty(saved, dtype=torch.int32),
            query.new_empty(saved, dtype=dtype),
        )

    @register_fake("automl_ext::_entmax15_attention_backward")
    def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        return contiguous_like(query), contiguous_like(key), contiguous_like(value)

    @register_vmap("automl_ext::entmax15_attention")
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _batched("entmax15_attention", info.batch_size, in_dims, *args), 0

    @register_vmap("automl_ext::_entmax15_attention_trained")
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[Any, tuple[int, ...]]:
        return _batched("_entmax15_attention_trained", info.batch_size, in_dims, *args), (0,) * 5
