"""entmax15_attention beside an independent formula in float64: values, gradients, masks, shapes, special values."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext import _native, backend, entmax15_attention

F64 = torch.float64
native_only = pytest.mark.skipif(not _native.is_loaded(), reason="the native library is missing")
both = pytest.mark.usefixtures("each_backend")
OP = torch.ops.automl_ext


def weights_of(scores: Tensor) -> Tensor:
    """Return entmax-1.5 of the last dim, by sorting, with a gradient; 0 for rows of only −inf."""
    z = scores / 2
    top = z.detach().amax(-1, keepdim=True).nan_to_num(neginf=0.0)
    z = z - top
    ordered = z.detach().sort(-1, descending=True).values.nan_to_num(neginf=-1e3)
    n = torch.arange(1, z.shape[-1] + 1, dtype=F64)
    mean = ordered.cumsum(-1) / n
    spread = ordered.square().cumsum(-1) - n * mean.square()
    taus = mean - ((1 - spread).clamp(min=0) / n).sqrt()
    size = (taus <= ordered).sum(-1, keepdim=True)
    support = z.detach() > taus.gather(-1, size - 1)
    inside = torch.where(support, z, 0)
    mean = inside.sum(-1, keepdim=True) / size
    spread = torch.where(support, inside - mean, 0).square().sum(-1, keepdim=True)
    tau = mean - ((1 - spread).clamp(min=0) / size).sqrt()
    return torch.where(support, inside - tau, 0).square()


def exact(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """Return attention in float64 from explicit scores."""
    q, k, v = q.to(F64), k.to(F64), v.to(F64)
    group = q.shape[-3] // k.shape[-3]
    k, v = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.to(F64)
    return weights_of(scores) @ v


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def flags(*shape: int, share: float = 0.6, seed: int = 5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def problem(
    q_shape: tuple[int, ...],
    k_shape: tuple[int, ...],
    d_v: int,
    factor: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    q, k = randn(*q_shape, seed=1) * factor, randn(*k_shape, seed=2) * factor
    return [x.to(dtype).requires_grad_() for x in (q, k, randn(*k_shape[:-1], d_v, seed=3))]


def with_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    grad = randn(*out.shape, seed=4).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def assert_equals_exact(tolerance: float, inputs: list[Tensor], mask: Tensor | None = None, **options: Any) -> None:
    """Compare results and gradients, relative to the largest value of each."""
    got = with_gradients(entmax15_attention(*inputs, mask, **options), inputs)
    options.pop("enable_gqa", None)
    wide = [x.detach().to(F64).requires_grad_() for x in inputs]
    for y, expected in zip(got, with_gradients(exact(*wide, mask, **options), wide), strict=True):
        assert y.shape == expected.shape
        largest = expected.abs().max().clamp(min=1e-30)
        assert (y - expected).abs().max() <= tolerance * largest, (y - expected).abs().max() / largest


# Blocks of 48 queries, chunks of 1024 keys, panels of 4 to 32 keys, vectors of 2 to 16 elements.
SHAPES = [
    ((1, 2, 100, 32), (1, 2, 100, 32), 32),
    ((1, 2, 50, 20), (1, 1, 70, 20), 33),
    ((2, 1, 7, 1), (2, 1, 33, 1), 1),
    ((1, 1, 49, 80), (1, 1, 1100, 80), 16),
    ((1, 1, 130, 64), (1, 1, 65, 64), 64),
    ((1, 4, 3, 40), (1, 2, 1500, 40), 7),
    ((1, 2, 1, 64), (1, 2, 300, 64), 64),
    ((1, 1, 5, 300), (1, 1, 3, 300), 130),
]
MASKS = ("none", "causal", "bool", "padding", "added", "scalar")


def mask_of(kind: str, q_shape: tuple[int, ...], k_shape: tuple[int, ...]) -> Tensor | None:
    batch, queries, keys = q_shape[0], q_shape[-2], k_shape[-2]
    if kind == "bool":  # the first query sees no key, and some blocks of keys no query sees
        mask = flags(batch, 1, queries, keys)
        mask[..., 0, :] = False
        mask[..., keys // 2 : keys // 2 + 40] = False
        return mask
    if kind == "padding":
        return torch.arange(keys) < torch.arange(1, batch + 1).view(batch, 1, 1, 1) * keys // (batch + 1)
    if kind == "added":
        return torch.where(flags(queries, keys, share=0.8), randn(queries, keys, seed=6), -math.inf)
    return flags(1, 1) if kind == "scalar" else None


@native_only
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("factor", [0.02, 0.4, 1.0, 3.0])
def test_float32(shapes: tuple, kind: str, factor: float) -> None:
    """From supports of all keys, which are products of matrices, to supports of a few."""
    inputs = problem(*shapes, factor)
    assert_equals_exact(3e-5, inputs, mask_of(kind, *shapes[:2]), is_causal=kind == "causal", enable_gqa=True)


@both
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("factor", [0.02, 1.0])
@pytest.mark.parametrize("shapes", SHAPES[:6:2], ids=str)
def test_float64(shapes: tuple, kind: str, factor: float) -> None:
    inputs = problem(*shapes, factor, F64)
    assert_equals_exact(1e-11, inputs, mask_of(kind, *shapes[:2]), is_causal=kind == "causal", enable_gqa=True)


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("factor", [0.02, 1.0])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, factor: float) -> None:
    for kind, shapes in itertools.product(("none", "causal", "added"), SHAPES[:4]):
        inputs, mask = problem(*shapes, factor, dtype), mask_of(kind, *shapes[:2])
        assert_equals_exact(torch.finfo(dtype).eps, inputs, mask, is_causal=kind == "causal", enable_gqa=True)
        for given in (mask, None if mask is None else mask.to(dtype)):
            assert entmax15_attention(*inputs, given, enable_gqa=True).dtype == dtype


@both
def test_the_meaning_of_arguments_is_that_of_torch() -> None:
    """With large scores, softmax and entmax-1.5 both choose one key."""
    q, values = 100 * randn(2, 4, 5, 8, seed=1), randn(2, 2, 9, 3, seed=3)
    cases: list[tuple[int, Tensor | None, dict[str, Any]]] = [
        (9, None, {}),
        (9, None, {"scale": 2.0}),
        (9, None, {"scale": -3.0}),
        (9, None, {"is_causal": True}),  # the first query is aligned with the first key
        (3, None, {"is_causal": True}),
        (5, flags(5, 5), {}),
        (9, flags(2, 1, 1, 9), {}),
        (9, 1e5 * randn(4, 5, 9), {}),
    ]
    for keys, mask, options in cases:
        k, v = 100 * randn(2, 2, keys, 8, seed=2), values[..., :keys, :]
        expected = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True, **options).nan_to_num()
        torch.testing.assert_close(entmax15_attention(q, k, v, mask, enable_gqa=True, **options), expected)


@both
def test_batch_dims_broadcast() -> None:
    q, k, v = randn(2, 1, 5, 4), randn(1, 3, 6, 4, seed=2), randn(3, 6, 7, seed=3)
    expected = exact(q.expand(2, 3, 5, 4), k.expand(2, 3, 6, 4), v.expand(2, 3, 6, 7)).float()
    torch.testing.assert_close(entmax15_attention(q, k, v), expected)
    flat = entmax15_attention(q[0, 0], k[0, 0], v[0])
    torch.testing.assert_close(flat, expected[0, 0])
    one = entmax15_attention(q.expand(2, 2, 5, 4), k[:, :1], v[:1], enable_gqa=True)  # groups, and a broadcast batch
    torch.testing.assert_close(one, expected[:, :1].expand(2, 2, 5, 7))
    other = entmax15_attention(randn(1, 6, 5, 4), k, randn(2, 6, 7), enable_gqa=True)
    k6, v6 = k.repeat_interleave(2, 1), randn(2, 6, 7).repeat_interleave(3, 0).expand(1, 6, 6, 7)
    torch.testing.assert_close(other, exact(randn(1, 6, 5, 4), k6, v6).float())
    inputs = [x.requires_grad_() for x in (q, k, v)]
    got = with_gradients(entmax15_attention(*inputs), inputs)
    expanded = [x.detach().expand(2, 3, *x.shape[-2:]).clone().requires_grad_() for x in inputs]
    whole = with_gradients(entmax15_attention(*expanded), expanded)
    for y, x, expected in zip(got[1:], inputs, whole[1:], strict=True):
        torch.testing.assert_close(y, expected.sum_to_size(x.shape))


@both
@pytest.mark.parametrize("sizes", [(0, 5, 4, 3), (5, 0, 4, 3), (0, 0, 4, 3), (5, 6, 4, 0), (5, 6, 0, 3), (60, 6, 0, 3)])
def test_empty(sizes: tuple[int, ...]) -> None:
    queries, keys, d, d_v = sizes
    inputs = problem((2, 3, queries, d), (2, 3, keys, d), d_v)
    for mask in (None, flags(queries, keys)):
        out = entmax15_attention(*inputs, mask)
        assert out.shape == (2, 3, queries, d_v)
        if keys == 0:
            assert not out.any()
        elif d == 0 and mask is None:  # equal scores
            torch.testing.assert_close(out, inputs[2].mean(-2, keepdim=True).expand_as(out))
        for gradient, x in zip(torch.autograd.grad(out.sum(), inputs), inputs, strict=True):
            assert gradient.shape == x.shape
            assert gradient.isfinite().all()
    assert entmax15_attention(*problem((0, 3, 5, 4), (0, 3, 6, 4), 2)).shape == (0, 3, 5, 2)


@both
@pytest.mark.parametrize("rows", [3, 60])  # few queries read the keys in place
def test_rows_without_a_visible_key_are_zero(rows: int) -> None:
    inputs = problem((1, 2, rows, 8), (1, 2, 70, 8), 5)
    hidden = torch.ones(rows, 70, dtype=torch.bool)
    hidden[1] = False
    for mask in (hidden, torch.where(hidden, 0.0, -math.inf)):
        out, dq, dk, dv = with_gradients(entmax15_attention(*inputs, mask), inputs)
        assert not out[:, :, 1].any()
        assert out[:, :, 0].any()
        assert not dq[:, :, 1].any()
        assert all(x.isfinite().all() for x in (out, dq, dk, dv))


SPREAD = (0.01, 1.0)  # all keys count, or a few


@native_only
@pytest.mark.parametrize("rows", [3, 60])
@pytest.mark.parametrize("factor", SPREAD)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_hidden_keys_hold_has_no_effect(rows: int, factor: float, bad: float) -> None:
    clean = problem((1, 2, rows, 40), (1, 2, 170, 40), 5, factor)
    seen = flags(170)
    seen[100:140] = False
    q, k, v = (x.detach().clone() for x in clean)
    k[..., ~seen, :] = bad
    v[..., ~seen, :] = bad
    dirty = [x.requires_grad_() for x in (q, k, v)]
    for mask in (seen, seen.expand(rows, 170).contiguous()):
        expected, got = (with_gradients(entmax15_attention(*x, mask), x) for x in (clean, dirty))
        for y, z in zip(got, expected, strict=True):
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-6)
        assert not got[2][..., ~seen, :].any()
        assert not got[3][..., ~seen, :].any()


@native_only
@pytest.mark.parametrize("rows", [4, 60])
@pytest.mark.parametrize("factor", SPREAD)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nan_or_inf_score_spoils_its_row_only(rows: int, factor: float, bad: float) -> None:
    q, k, v = (x.detach() for x in problem((1, 1, rows, 40), (1, 1, 170, 40), 5, factor))
    expected = entmax15_attention(q, k, v)
    spoiled = q.clone()
    spoiled[..., 2, 0] = bad  # −inf and +inf scores, or NaN
    added = torch.zeros(rows, 170)
    added[2, 100] = bad
    for given, mask in ((spoiled, None), (q, added)):
        inputs = [x.clone().requires_grad_() for x in (given, k, v)]
        out, dq, dk, dv = with_gradients(entmax15_attention(*inputs, mask), inputs)
        others = torch.arange(rows) != 2
        assert out[..., 2, :].isnan().all()
        assert dq[..., 2, :].isnan().all()
        torch.testing.assert_close(out[..., others, :], expected[..., others, :], rtol=1e-5, atol=1e-6)
        assert all(x.isfinite().all() for x in (dq[..., others, :], dk, dv))
    one = k.clone()
    one[..., 150, :] = math.nan  # seen by the last queries only
    out = entmax15_attention(randn(1, 1, 170, 40, seed=7), one, v, is_causal=True)
    assert out[..., :150, :].isfinite().all()
    assert out[..., 150:, :].isnan().all()


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("keys", [3, 50])
def test_a_row_of_nan_reads_no_keys(dtype: torch.dtype, rows: int, keys: int) -> None:
    """Such a row has no largest score: its list was taken for a support, with places behind the last key."""
    q, k, v = randn(1, rows, 8, dtype=dtype), randn(1, keys, 8, dtype=dtype), randn(1, keys, 8, dtype=dtype)
    q[:, 0] = math.nan
    out, dq, dk, dv = with_gradients(entmax15_attention(*(x := [t.requires_grad_() for t in (q, k, v)])), x)
    assert out[:, 0].isnan().all()
    assert dq[:, 0].isnan().all()
    assert all(y.isfinite().all() for y in (out[:, 1:], dq[:, 1:], dk, dv))


@native_only
@pytest.mark.parametrize("rows", [4, 60])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_value_counts_where_its_weight_is_positive(rows: int, bad: float) -> None:
    for factor in (0.01, 0.5, 2.0):
        q, k, v = (x.detach() for x in problem((1, 1, rows, 40), (1, 1, 170, 40), 5, factor))
        scores = q.double() @ k.double().mT / 40**0.5
        scores[..., 0, 30] = -40.0
        added = torch.zeros(rows, 170)
        added[0, 30] = -40.0
        used = weights_of(q.double() @ k.double().mT / 40**0.5 + added)[..., 30] > 0
        broken = v.clone()
        broken[..., 30, 1] = bad
        inputs = [x.clone().requires_grad_() for x in (q, k, broken)]
        out = entmax15_attention(*inputs, added)
        torch.testing.assert_close(out[..., 1].isfinite(), ~used)
        assert not used[..., 0]
        assert out[..., [0, 2, 3, 4]].isfinite().all()
        gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
        assert gradients[0][..., ~used[0, 0], :].isfinite().all()
        assert gradients[2].isfinite().all()


def views(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return a [B, H, L, d] view of [B, L, 3, H, d], as models make them with one product."""
    batch, heads, length, width = shape
    return randn(batch, length, 3, heads, width, seed=seed)[:, :, 1].transpose(1, 2)


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-35, 1.0, 1e15, 1e35], ids=str)
def test_scores_of_large_and_small_numbers(size: float, dtype: torch.dtype) -> None:
    # AMX takes parts of numbers below 1e-38 as 0, and is not used for numbers above 1e18: neither a query of 1e35, nor
    # the keys of 1e35, of which the last panel has none.
    q, k, v = (randn(1, 2, 70, 64, seed=i) for i in range(3))
    k[..., : 40 if size < 1 else 70, :] /= size
    q, k, v = (q * size).to(dtype), k.to(dtype), v.to(dtype)
    limit = 1e-5 if dtype == torch.float32 else 1e-2
    assert (entmax15_attention(q, k, v) - exact(q, k, v)).abs().max() < limit


@both
def test_strides_do_not_matter() -> None:
    shape = (2, 3, 70, 16)
    q, k, v = (views(shape, seed) for seed in (1, 2, 3))
    mask = flags(70, 2, 70).transpose(0, 2)[:, 1]  # other strides in both dims
    for given in (
        None,
        mask,
        randn(70, 2, 70, seed=6).transpose(0, 2)[:, 1],
        flags(2, 3, 1, 70).transpose(0, 1).contiguous().transpose(0, 1),
    ):
        plain = [x.contiguous().requires_grad_() for x in (q, k, v)]
        strided = [x.detach().requires_grad_() for x in (q, k, v)]
        other = None if given is None else given.contiguous()
        expected = with_gradients(entmax15_attention(*plain, other), plain)
        for y, z in zip(with_gradients(entmax15_attention(*strided, given), strided), expected, strict=True):
            torch.testing.assert_close(y, z)
    out = entmax15_attention(*strided)
    grad = views(tuple(out.shape), 8)
    for y, z in zip(
        torch.autograd.grad(out, strided, grad, retain_graph=True),
        torch.autograd.grad(out, strided, grad.contiguous()),
        strict=True,
    ):
        torch.testing.assert_close(y, z)


@native_only
@pytest.mark.parametrize("options", [{}, {"is_causal": True}])
def test_any_number_of_threads_gives_the_same_bits(options: dict[str, Any]) -> None:
    before = torch.get_num_threads()
    for shapes, factor in itertools.product(
        (((1, 1, 700, 16), (1, 1, 500, 16)), ((2, 6, 130, 8), (2, 3, 130, 8)), ((9, 2, 2, 8), (9, 1, 900, 8))),
        (0.02, 1.0),
    ):
        inputs = problem(*shapes, 16, factor)
        results = []
        try:
            for n in (1, 2, 3, 7):
                torch.set_num_threads(n)
                results.append(with_gradients(entmax15_attention(*inputs, enable_gqa=True, **options), inputs))
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16], ids=str)
def test_supports_are_saved_or_computed_again(dtype: torch.dtype) -> None:
    """Both give the same gradients: the count −1 − n says that the support of a query was not saved."""
    for factor in (0.5, 1.0):
        q, k, v = (x.detach() for x in problem((1, 2, 130, 16), (1, 2, 1100, 16), 16, factor, dtype))
        out, tau, counts, places, roots = OP._entmax15_attention_trained(q, k, v, None, False, 0.25)
        grad = randn(*out.shape, seed=4).to(dtype)
        assert ((counts >= 0).all()) == (factor == 1.0)
        first = OP._entmax15_attention_backward(grad, q, k, v, None, False, 0.25, tau, counts, places, roots)
        again = torch.where(counts < 0, counts, -1 - counts)
        places = torch.full_like(places, 10**9)  # not read
        second = OP._entmax15_attention_backward(grad, q, k, v, None, False, 0.25, tau, again, places, roots)
        for a, b in zip(first, second, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4)


@native_only
@pytest.mark.parametrize("factor", [0.02, 0.3])  # products of matrices, and lists
def test_weights_that_are_computed_again_sum_to_one(factor: float) -> None:
    """Large scores, so that the rounding of the saved τ would be visible."""
    inputs = problem((1, 1, 60, 8), (1, 1, 1500, 8), 4, factor)
    out = entmax15_attention(*inputs, torch.full((1, 1), 100.0))
    counts = OP._entmax15_attention_trained(*(x.detach() for x in inputs), torch.full((1, 1), 100.0), False, 8**-0.5)[2]
    assert (counts < 0).all()
    grad = randn(1, 1, 60, 4).abs()
    (dv,) = torch.autograd.grad(out, inputs[2], grad)
    torch.testing.assert_close(dv.sum(-2), grad.sum(-2), rtol=3e-6, atol=0)


@native_only
def test_backward_op_checks_what_the_forward_pass_saved() -> None:
    q, k, v = (x.detach() for x in problem((1, 2, 50, 8), (1, 2, 70, 8), 5))
    out, *saved = OP._entmax15_attention_trained(q, k, v, None, False, 0.25)

    def backward(i: int, other: Tensor) -> object:
        given = [other if j == i else x for j, x in enumerate(saved)]
        return OP._entmax15_attention_backward(out, q, k, v, None, False, 0.25, *given)

    backward(0, saved[0])
    tau, counts, places, roots = saved
    for i, other in (
        (2, places + 70),
        (2, places - 70),
        (2, torch.full_like(places, 2**31 - 1)),
        (1, counts + 60),
        (1, torch.full_like(counts, 2**31 - 1)),
    ):
        with pytest.raises(ValueError, match="places: expected what the forward pass returned"):
            backward(i, other)
    backward(1, torch.full_like(counts, -(2**31)))
    with pytest.raises(ValueError, match=r"tau: expected shape \[1, 2, 50\], got \[1, 2, 49\]"):
        backward(0, tau[..., 1:])
    with pytest.raises(TypeError, match="roots: expected Float, got Double"):
        backward(3, roots.double())
    with pytest.raises(ValueError, match=r"grad: expected shape"):
        OP._entmax15_attention_backward(out[..., 1:], q, k, v, None, False, 0.25, *saved)


@both
def test_gradient_of_the_mask() -> None:
    inputs = problem((2, 3, 5, 4), (2, 3, 6, 4), 3, dtype=F64)
    mask = randn(3, 5, 6, seed=6, dtype=F64).requires_grad_()
    expected = with_gradients(exact(*inputs, mask), [*inputs, mask])
    for y, z in zip(with_gradients(entmax15_attention(*inputs, mask), [*inputs, mask]), expected, strict=True):
        torch.testing.assert_close(y, z)
    gradient = torch.func.grad(lambda m: entmax15_attention(*inputs, m).sin().sum())(mask)
    (other,) = torch.autograd.grad(entmax15_attention(*inputs, mask).sin().sum(), mask)
    torch.testing.assert_close(gradient, other)


def masked(mask: Tensor, *inputs: Tensor) -> Tensor:
    return entmax15_attention(*inputs, mask, enable_gqa=True)


@both
def test_second_derivatives_with_masks_and_groups() -> None:
    inputs = problem((1, 2, 3, 2), (1, 1, 4, 2), 2, dtype=F64)
    for mask in (flags(3, 4), randn(3, 4, dtype=F64)):
        assert torch.autograd.gradgradcheck(partial(masked, mask), inputs)


@native_only
def test_memory_is_linear_in_the_length() -> None:
    """A matrix of weights would take 268 MB; the allowance is 64."""
    import resource

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    inputs = problem((1, 1, 8192, 32), (1, 1, 8192, 32), 32)
    before = peak()
    entmax15_attention(*inputs).sum().backward()
    assert peak() - before < 64


@both
def test_errors_name_the_argument() -> None:
    q, k, v = randn(2, 4, 5, 8), randn(2, 4, 6, 8), randn(2, 4, 6, 3)
    cases: list[tuple[type[Exception], str, tuple, dict]] = [
        (
            ValueError,
            r"query: expected shape \[\.\.\., length, width\], got float32 tensor of shape \(8,\)",
            (q[0, 0, 0], k, v),
            {},
        ),
        (ValueError, r"key: expected the width of query, 8, got float32 tensor of shape", (q, v, v), {}),
        (ValueError, r"value: expected the length of key, 6, got", (q, k, v[..., 1:, :]), {}),
        (ValueError, r"key, value: expected batch dims .* use enable_gqa=True", (q, k[:, :2], v[:, :2]), {}),
        (
            ValueError,
            r"key: expected a number of heads that divides .* 4, got",
            (q, k[:, :3], v[:, :3]),
            {"enable_gqa": True},
        ),
        (ValueError, r"is_causal: expected False with an attn_mask", (q, k, v, flags(5, 6)), {"is_causal": True}),
        (ValueError, r"attn_mask: expected a shape that broadcasts to \(2, 4, 5, 6\), got", (q, k, v, flags(6, 5)), {}),
        (
            TypeError,
            r"attn_mask: expected a dense bool or float32 tensor, got int64",
            (q, k, v, torch.ones(5, 6).long()),
            {},
        ),
        (
            TypeError,
            r"attn_mask: expected a dense bool or float32 or float64 tensor, got int64",
            (q.double(), k.double(), v.double(), torch.ones(5, 6).long()),
            {},
        ),
        (TypeError, r"key: expected torch.float32 as query, got torch.float64", (q, k.double(), v), {}),
        (TypeError, r"value: expected a float64, .*, got NoneType None", (q, k, None), {}),
        (ValueError, r"scale: expected a number in", (q, k, v), {"scale": math.nan}),
        (TypeError, r"is_causal: expected a bool", (q, k, v), {"is_causal": 1}),
    ]
    for kind, message, arguments, options in cases:
        with pytest.raises(kind, match="^entmax15_attention: " + message):
            entmax15_attention(*arguments, **options)


def test_without_the_library_and_on_another_device() -> None:
    q, k, v = randn(2, 4, 5, 8), randn(2, 4, 6, 8), randn(2, 4, 6, 3)
    with backend("reference"):
        torch.testing.assert_close(entmax15_attention(q, k, v), exact(q, k, v).float())
    out = entmax15_attention(q.to("meta"), k.to("meta"), v.to("meta"))
    assert out.shape == (2, 4, 5, 3)
