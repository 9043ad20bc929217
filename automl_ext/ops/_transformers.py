"""``attn_implementation="entmax15"`` for the models of the package transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "entmax15"
# What a model may ask of its attention and softmax only has, or this op has not.
REFUSED = {
    "softcap": "a limit of the scores",
    "s_aux": "attention sinks",
    "position_bias": "a bias of positions",
    "output_attentions": "the weights as an output",
}


def register(op: Callable[..., Tensor]) -> None:
    """Register an implementation that calls ``op``, with the masks of padding and sliding windows of ``"sdpa"``."""
    AttentionInterface.register(NAME, functools.partial(_attend, op))
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    op: Callable[..., Tensor],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend with query [N, heads, L, d] and key and value [N, groups, S, d]; return [N, L, heads, d]."""
    for name, what in REFUSED.items():
        if others.get(name) is not None and others[name] is not False:
            raise ValueError(f"attn_implementation={NAME!r}: {name}, {what}: expected None, got {type(others[name])}")
    if dropout:
        raise ValueError(
            f"attn_implementation={NAME!r}: dropout of the weights: expected 0, got {dropout}; set attention_dropout "
            "(or attention_probs_dropout_prob) of the model's config to 0"
        )
    length, causal = query.shape[2], getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal and attention_mask is None and length > 1)  # the one query of a cache sees all of it
    if causal and key.shape[2] > length:  # an empty static cache: the keys behind belong to no token yet
        key, value = key[:, :, :length], value[:, :, :length]
    out = op(
        query, key, value, attention_mask, is_causal=causal, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
    )
    return out.transpose(1, 2).contiguous(), None
