"""``EntmaxMultiheadAttention`` is ``nn.MultiheadAttention`` with entmax-1.5 for softmax, in every option.

The reference is PyTorch's own module, whose softmax is replaced while it runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import automl_ext
from automl_ext import EntmaxMultiheadAttention

E, HEADS, N, L, S = 12, 2, 3, 5, 7


@pytest.fixture
def entmax_for_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``nn.MultiheadAttention`` with ``need_weights=True`` compute entmax-1.5."""
    monkeypatch.setattr(F, "softmax", lambda x, dim: automl_ext.entmax15(x, dim))


def pair(**options: Any) -> tuple[nn.MultiheadAttention, EntmaxMultiheadAttention]:
    torch.manual_seed(0)
    theirs, ours = nn.MultiheadAttention(E, HEADS, **options), EntmaxMultiheadAttention(E, HEADS, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    return theirs, ours


def inputs(batch_first: bool = False, width: int = E) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(N, n, w, generator=g) for n, w in ((L, E), (S, width), (S, width)))
    return tuple(x if batch_first else x.transpose(0, 1) for x in (query, key, value))  # type: ignore[return-value]


def padding() -> Tensor:
    hidden = torch.zeros(N, S, dtype=torch.bool)
    hidden[0, 4:] = hidden[2, 1] = True
    return hidden


def masks() -> Iterator[dict[str, Any]]:
    g = torch.Generator().manual_seed(2)
    two, three = torch.rand(L, S, generator=g) < 0.3, torch.rand(N * HEADS, L, S, generator=g) < 0.3
    two[:, 0] = three[:, :, 0] = False  # every query sees a key: softmax would be NaN
    yield {}
    yield {"key_padding_mask": padding()}
    for mask in (two, three, torch.randn(L, S, generator=g), torch.randn(N * HEADS, L, S, generator=g)):
        yield {"attn_mask": mask}
    yield {"attn_mask": two, "key_padding_mask": padding()}
    yield {"attn_mask": torch.randn(L, S, generator=g), "key_padding_mask": padding() * -1e9}


def assert_equal(theirs: nn.Module, ours: nn.Module, xs: tuple[Tensor, ...], **options: Any) -> None:
    """Results with and without weights, and all gradients, are equal."""
    expected, weights = theirs(*xs, **options)
    got, got_weights = ours(*xs, **options)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got_weights, weights)
    assert ((got_weights == 0) | (got_weights > 0)).all()
    without, none = ours(*xs, **options, need_weights=False)
    assert none is None
    torch.testing.assert_close(without, expected, rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(y.sin().sum(), list(m.parameters())) for y, m in ((expected, theirs), (without, ours))]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("masked", list(masks()), ids=lambda m: "+".join(f"{k}{v.dtype}{v.ndim}" for k, v in m.items()))
def test_masks(entmax_for_softmax: None, masked: dict[str, Tensor], batch_first: bool) -> None:
    assert_equal(*pair(batch_first=batch_first), inputs(batch_first), **masked)


@pytest.mark.parametrize(
    "options",
    [{"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}],
)
@pytest.mark.parametrize("masked", [{}, {"key_padding_mask": padding()}])
def test_options(entmax_for_softmax: None, options: dict[str, bool], masked: dict[str, Tensor]) -> None:
    assert_equal(*pair(**options), inputs(), **masked)


def test_other_widths_of_keys_and_weights_per_head(entmax_for_softmax: None) -> None:
    assert_equal(*pair(kdim=4, vdim=4), inputs(width=4), average_attn_weights=False)


def test_unbatched(entmax_for_softmax: None) -> None:
    assert_equal(*pair(), tuple(x[:, 0] for x in inputs()), key_padding_mask=padding()[0])


def test_self_attention_with_the_hint_is_causal(entmax_for_softmax: None) -> None:
    theirs, ours = pair(batch_first=True)
    x, mask = inputs(True)[0], nn.Transformer.generate_square_subsequent_mask(L)
    expected, _ = theirs(x, x, x, attn_mask=mask)
    got, _ = ours(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
    torch.testing.assert_close(got, expected)
    with pytest.raises(ValueError, match="is_causal: expected an attn_mask"):
        ours(x, x, x, is_causal=True)


def test_dropout_zeroes_weights_in_training_only() -> None:
    _, ours = pair(dropout=0.5, batch_first=True)
    x = inputs(True)[0]
    plain, _ = ours.eval()(x, x, x)
    torch.testing.assert_close(ours(x, x, x, need_weights=False)[0], plain)
    torch.manual_seed(0)
    dropped, weights = ours.train()(x, x, x, average_attn_weights=False)
    torch.manual_seed(0)
    torch.testing.assert_close(ours(x, x, x, need_weights=False)[0], dropped)
    undropped = ours.eval()(x, x, x, average_attn_weights=False)[1]
    assert (((weights - 2 * undropped).abs() < 1e-6) | (weights == 0)).all()
    assert 0.2 < (weights[undropped > 0] == 0).float().mean() < 0.8


def test_a_query_without_a_key_gives_the_bias_of_the_projection() -> None:
    _, ours = pair(batch_first=True)
    out, _ = ours(*inputs(True), key_padding_mask=torch.ones(N, S, dtype=torch.bool), need_weights=False)
    torch.testing.assert_close(out, ours.out_proj.bias.expand_as(out))


def test_inside_an_encoder(entmax_for_softmax: None) -> None:
    """PyTorch's fast path for inference, softmax without a call of the module, is not taken."""
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(E, HEADS, 16, dropout=0.0, batch_first=True)
    ours = copy.deepcopy(theirs)
    ours.self_attn = EntmaxMultiheadAttention(E, HEADS, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    attend = theirs.self_attn.forward
    theirs.self_attn.forward = lambda *xs, **options: attend(*xs, **{**options, "need_weights": True})
    x, hidden = 3 * inputs(True)[0], torch.tensor([[False] * 4 + [True]] * N)
    expected = theirs.train()(x, src_key_padding_mask=hidden)
    for model in (ours, nn.TransformerEncoder(ours, 1, enable_nested_tensor=False)):
        torch.testing.assert_close(model.train()(x, src_key_padding_mask=hidden), expected)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x, src_key_padding_mask=hidden), expected)


def test_errors_name_the_argument() -> None:
    _, ours = pair(batch_first=True)
    q, k, v = inputs(True)
    with pytest.raises(
        ValueError, match=r"EntmaxMultiheadAttention: attn_mask: expected shape \(5, 7\) or \(6, 5, 7\)"
    ):
        ours(q, k, v, attn_mask=torch.zeros(L, S + 1))
    with pytest.raises(TypeError, match=r"key_padding_mask: expected bool or float, got torch\.int64"):
        ours(q, k, v, key_padding_mask=torch.zeros(N, S, dtype=torch.int64))
    with pytest.raises(ValueError, match="key: expected a dense tensor with 12 features and 2 dims, or 3"):
        ours(q, k[0], v)
    with pytest.raises(TypeError, match=r"EntmaxMultiheadAttention: value: expected a float64, .*got int64"):
        ours(q, k, v.long())
    for key, value in ((k, v[:, :-1]), (k[:1], v[:1])):
        with pytest.raises(ValueError, match=r"key, value: expected a batch of \d, as query with batch_first=True"):
            ours(q, key, value)


@pytest.mark.parametrize("options", [{}, {"kdim": 6}], ids=["one matrix", "three matrices"])
def test_weights_of_the_meta_device_can_be_reset(options: dict[str, int]) -> None:
    with torch.device("meta"):
        model = EntmaxMultiheadAttention(E, HEADS, **options)
    model = model.to_empty(device="cpu")
    weights = [p for name, p in model.named_parameters() if "proj_weight" in name]
    for weight in weights:
        nn.init.zeros_(weight)
    model._reset_parameters()
    assert all(bool(weight.any()) for weight in weights)
    assert not bool(model.in_proj_bias.any())
    assert not model._qkv_same_embed_dim


def test_autocast_and_compile() -> None:
    _, ours = pair(batch_first=True)
    x = inputs(True)[0]
    expected, _ = ours(x, x, x, need_weights=False)
    compiled = torch.compile(lambda y: ours(y, y, y, need_weights=False)[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = ours(x, x, x, need_weights=False)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.1, atol=0.1)
