"""Multi-head attention with entmax-1.5 weights: a module in place of ``nn.MultiheadAttention``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_ext.ops._checks import check_float_tensor
from automl_ext.ops.attention import attention_weights, entmax15_attention

NAME = "EntmaxMultiheadAttention"


class EntmaxMultiheadAttention(nn.MultiheadAttention):
    """Attend with :func:`automl_ext.entmax15_attention`: most weights are exactly 0.

    Arguments, ``forward`` and ``state_dict`` are those of :class:`torch.nn.MultiheadAttention`. With
    ``need_weights=False``, and without dropout, the matrix of weights is never stored. A query that sees no key has a
    result of zeros before the output projection, where softmax gives NaN. Inside ``nn.TransformerEncoderLayer``, assign
    it to ``self_attn``: PyTorch's fast path for inference, which computes softmax, is then not used.
    """

    def _reset_parameters(self) -> None:  # the constructor ends with it
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        # nn.TransformerEncoderLayer takes its fast path, softmax without a call of this module, only if this is True.
        self._qkv_same_embed_dim = False

    def forward(  # the arguments and shapes are described in nn.MultiheadAttention
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the result and, with ``need_weights``, the sparse weights.

        Raises:
            ValueError: shapes do not fit together, or ``is_causal`` is True without ``attn_mask``, about which it is a
                hint.
        """
        batched = query.ndim == 3
        q, k, v = self._projected(*self._batch_first(query, key, value))
        length, batch = q.shape[1], len(q)
        if is_causal and attn_mask is None:
            raise ValueError(f"{NAME}: is_causal: expected an attn_mask, of which it is a hint, got None")
        causal = is_causal and key_padding_mask is None and self.bias_k is None and not self.add_zero_attn
        mask = None if causal else self._mask(key_padding_mask, attn_mask, (batch, length, k.shape[1]), batched)
        k, v, mask = self._with_more_keys(k, v, mask)

        q, k, v = (
            x.reshape(batch, -1, self.num_heads, x.shape[-1] // self.num_heads).transpose(1, 2) for x in (q, k, v)
        )  # [N, heads, length, d]
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights or dropout:
            weights = F.dropout(attention_weights(q, k, mask, causal, q.shape[-1] ** -0.5).to(v.dtype), dropout)
            heads = weights @ v
        else:
            heads = entmax15_attention(q, k, v, mask, is_causal=causal)
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
        if not batched:
            out, weights = out.squeeze(0), weights if weights is None else weights.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        return out, weights if need_weights else None

    def _batch_first(self, *inputs: Tensor) -> list[Tensor]:
        """Return query, key and value as [N, length, features]; the same tensor remains the same."""
        widths = (self.embed_dim, self.kdim, self.vdim)
        for name, x, width in zip(("query", "key", "value"), inputs, widths, strict=True):
            check_float_tensor(x, name, NAME)
            if x.is_nested or x.ndim != inputs[0].ndim or x.ndim not in (2, 3) or x.shape[-1] != width:
                got = "a nested tensor" if x.is_nested else f"shape {tuple(x.shape)}"
                raise ValueError(
                    f"{NAME}: {name}: expected a dense tensor with {width} features and 2 dims, or 3 with a batch, as "
                    f"query, got {got}"
                )
        dims = inputs[0].ndim
        moved = {}
        for x in inputs:
            moved[id(x)] = x.unsqueeze(0) if dims == 2 else x if self.batch_first else x.transpose(0, 1)
        query, key, value = (moved[id(x)] for x in inputs)
        if key.shape[:2] != value.shape[:2] or len(key) != len(query):
            batch = f"a batch of {len(query)}, as query with batch_first={self.batch_first}, and " * (dims == 3)
            raise ValueError(
                f"{NAME}: key, value: expected {batch}one length, got shapes {tuple(inputs[1].shape)} and "
                f"{tuple(inputs[2].shape)}"
            )
        return [query, key, value]

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        bias = self.in_proj_bias
        if self.in_proj_weight is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        elif query is key is value:  # one product
            return list(F.linear(query, self.in_proj_weight, bias).chunk(3, -1))
        else:
            weights = list(self.in_proj_weight.chunk(3))
        biases = [None] * 3 if bias is None else bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _mask(
        self, padding: Tensor | None, mask: Tensor | None, shape: tuple[int, int, int], batched: bool
    ) -> Tensor | None:
        """Return the masks as one of [N, heads, length, keys], broadcast: bool (True: visible), or floats to add."""
        batch, length, keys = shape
        if padding is not None:
            expected = (batch, keys) if batched else (keys,)
            _check_mask("key_padding_mask", padding, [expected])
            padding = padding.reshape(batch, 1, 1, keys)
        if mask is not None:
            _check_mask("attn_mask", mask, [(length, keys), (batch * self.num_heads, length, keys)])
            mask = mask.reshape(batch, -1, length, keys) if mask.ndim == 3 else mask
        masks = [m for m in (padding, mask) if m is not None]
        if all(m.dtype == torch.bool for m in masks):  # True: hidden
            return ~(masks[0] | masks[-1]) if masks else None
        added = [
            torch.zeros_like(m, dtype=torch.float32).masked_fill(m, -torch.inf) if m.dtype == torch.bool else m
            for m in masks
        ]
        return added[0] + added[1] if len(added) == 2 else added[0]

    def _with_more_keys(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the keys and values of ``add_bias_kv`` and ``add_zero_attn``, which all queries see."""
        more = []
        if self.bias_k is not None and self.bias_v is not None:
            more.append((self.bias_k, self.bias_v))
        if self.add_zero_attn:
            more.append((k.new_zeros(1, 1, 1), v.new_zeros(1, 1, 1)))
        for key, value in more:
            k, v = (torch.cat([x, y.to(x.dtype).expand(len(x), 1, x.shape[-1])], 1) for x, y in ((k, key), (v, value)))
            if mask is not None:
                mask = F.pad(mask, (0, 1), value=mask.dtype == torch.bool)
        return k, v, mask


def _check_mask(name: str, mask: Tensor, shapes: list[tuple[int, ...]]) -> None:
    if not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise TypeError(f"{NAME}: {name}: expected bool or float, got {mask.dtype}")
    if tuple(mask.shape) not in shapes:
        raise ValueError(f"{NAME}: {name}: expected shape {' or '.join(map(str, shapes))}, got {tuple(mask.shape)}")
