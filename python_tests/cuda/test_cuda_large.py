"""Tensors of more than 2³¹ elements; a few rows are compared with the reference on the CPU."""

from __future__ import annotations

import pytest
import torch
from gpu import GPU, required
from op_specs import off_threshold
from philox_words import word_at
from torch import Tensor

import automl_ext as a
from automl_ext.ops._gumbel_reference import gumbel_from_words

required()
pytestmark = [pytest.mark.cuda, pytest.mark.real_gpu]
MANY = 2**31
BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    torch.cuda.empty_cache()


def needs(gigabytes: float) -> None:
    """Skip the test unless this much GPU memory is free."""
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gigabytes + 1:
        pytest.skip(f"needs {gigabytes:.0f} GiB of GPU memory, {free:.0f} are free")


def noise(*shape: int, seed: int) -> Tensor:
    return torch.empty(shape, dtype=BF16, device=GPU).normal_(generator=torch.Generator(GPU).manual_seed(seed))


def some_rows(count: int, row: int) -> list[int]:
    """Return the first row, the last row and the rows around element 2³¹."""
    border = MANY // row
    return [0, border - 1, border, border + 1, count - 1]


def assert_near(got: Tensor, expected: Tensor) -> None:
    """Check bfloat16 results within 2 ulp of the largest value."""
    expected = expected.double()
    error = (got.cpu().double() - expected).abs().max()
    assert error <= 2 * torch.finfo(BF16).eps * expected.abs().max(), error


@pytest.mark.parametrize("op", [a.entmax15, a.sparsemax], ids=lambda op: op.__name__)
def test_rows_of_entmax(op) -> None:  # type: ignore[no-untyped-def]
    n = 1000
    count = MANY // n + 5
    needs(4 * count * n * 2 / 2**30)
    x, grad = noise(count, n, seed=0), noise(count, n, seed=1)
    rows = some_rows(count, n)
    leaf = x[rows].cpu().double().requires_grad_()
    with a.backend("reference"):
        expected = op(leaf)
    (dx_expected,) = torch.autograd.grad(expected, leaf, grad[rows].cpu().double())
    y = op(x.requires_grad_())
    assert_near(y[rows], expected)
    (dx,) = torch.autograd.grad(y, x, grad)
    # The gradient of an entry on the threshold of sparsemax is ambiguous.
    smooth = off_threshold([leaf], -1) if op is a.sparsemax else torch.ones(len(rows), 1, dtype=torch.bool)
    assert smooth.sum() >= 2
    assert_near(torch.where(smooth, dx[rows].cpu(), 0), torch.where(smooth, dx_expected, 0))


def test_one_row_of_entmax() -> None:
    n = MANY + 9
    needs((2 * 2 + 1) * n / 2**30)  # count_nonzero allocates a mask
    x = torch.full((n,), -10.0, dtype=BF16, device=GPU)
    x[[5, n - 1]] = 3.0
    y = a.entmax15(x)
    assert y[[5, n - 1]].tolist() == [0.5, 0.5]
    assert int(y.count_nonzero()) == 2


def test_gumbel() -> None:
    n, seed = 1000, 12345
    count = MANY // n + 5
    needs(4 * count * n * 2 / 2**30)
    x, grad = noise(count, n, seed=0), noise(count, n, seed=1)
    rows = some_rows(count, n)
    words = torch.tensor([[word_at(seed, r * n + i) for i in range(n)] for r in rows])
    z = (x[rows].cpu().double() + gumbel_from_words(words, torch.float32).double()).requires_grad_()
    expected = (z / 0.7).softmax(-1)
    (dx_expected,) = torch.autograd.grad(expected, z, grad[rows].cpu().double())
    y, index = a.gumbel_softmax(x.requires_grad_(), 0.7, seed=seed, return_index=True)
    assert index[rows].tolist() == z.argmax(-1).tolist()
    assert_near(y[rows], expected)
    (dx,) = torch.autograd.grad(y, x, grad)
    assert_near(dx[rows], dx_expected)
    assert torch.equal(a.gumbel_argmax(x, seed=seed), index)


def test_mixed_op() -> None:
    n = MANY + 77
    needs((6 * 2 + 1) * n / 2**30)  # count_nonzero allocates a mask
    xs = [noise(n, seed=k).requires_grad_() for k in range(2)]
    weights = torch.tensor([0.5, -2.0], device=GPU, requires_grad=True)
    y = a.mixed_op(xs, weights)
    ends = [*range(3), *range(MANY - 3, MANY + 3), *range(n - 3, n)]
    with torch.no_grad():
        assert_near(y[ends], 0.5 * xs[0][ends].cpu().double() - 2 * xs[1][ends].cpu().double())
    grad = torch.zeros_like(y)
    grad[ends] = 1.0
    *grads, dw = torch.autograd.grad(y, [*xs, weights], grad)
    for x, w, dx, dwk in zip(xs, (0.5, -2.0), grads, dw.tolist(), strict=True):
        assert_near(dx[ends], torch.full((len(ends),), w))
        assert int(dx.count_nonzero()) == len(ends)
        assert dwk == pytest.approx(x.detach()[ends].cpu().double().sum().item(), rel=1e-5, abs=1e-5)


def test_gae() -> None:
    steps, columns = 16, MANY // 16 + 3
    needs((8 * 2 + 2) * steps * columns / 2**30)
    rewards, values, next_values = (noise(steps, columns, seed=k) for k in range(3))
    ends = torch.rand(steps, columns, device=GPU, dtype=BF16) < 0.1
    advantages, returns = a.gae(rewards, values, next_values, ends, ends, 0.97, 0.9)
    at = [0, 1, columns // 2, columns - 2, columns - 1]
    with a.backend("reference"):
        floats = (x[:, at].cpu().double() for x in (rewards, values, next_values))
        expected = a.gae(*floats, ends[:, at].cpu(), ends[:, at].cpu(), 0.97, 0.9)
    for got, want in zip((advantages, returns), expected, strict=True):
        assert_near(got[:, at], want)
