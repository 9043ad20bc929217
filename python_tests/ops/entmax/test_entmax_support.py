"""The support that the forward pass keeps for the gradient changes only the time, not the result."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import automl_ext
from automl_ext import _native

pytestmark = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)
OPS = ["entmax15", "sparsemax"]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return sparse rows, one with full support, one of only −inf, and one with a NaN."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[1] *= 1e-3
    x[2] = -torch.inf
    x[3, 5] = torch.nan
    return x.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [32, 33, 47, 48, 49, 64])
@pytest.mark.parametrize("name", OPS)
def test_scores_of_minus_infinity_change_nothing(name: str, length: int, dtype: torch.dtype) -> None:
    """The kernel transposes rows of up to 48 elements; the padded rows take the path of longer ones."""
    x, eps = rows(37, length, dtype=dtype), torch.finfo(dtype).eps
    x[4, 7] = torch.inf
    padded = torch.nn.functional.pad(x, (0, 100 - length), value=-torch.inf)
    p, of_padded = (getattr(automl_ext, name)(values) for values in (x, padded))
    torch.testing.assert_close(p, of_padded[:, :length], rtol=4 * eps, atol=eps, equal_nan=True)
    assert not of_padded[5:, length:].any()


@pytest.mark.parametrize(
    ("dtype", "length"),
    [*itertools.product(DTYPES[1:3], (256, 257, 1000, 2049, 5000)), *itertools.product(DTYPES[::3], (257, 2049))],
    ids=str,
)
@pytest.mark.parametrize("name", OPS)
def test_gradients_equal_those_without_support(name: str, length: int, dtype: torch.dtype) -> None:
    x = rows(37, length, dtype=dtype).requires_grad_()
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    grad[5:, ::7] = torch.inf  # gradients outside the support are ignored
    backward = getattr(torch.ops.automl_ext, f"_{name}_backward")
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            p = getattr(automl_ext, name)(x)
            (got,) = torch.autograd.grad(p, x, grad)
            want = backward(grad, p.detach(), -1)
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    finally:
        torch.set_num_threads(threads)
    has_inf = ((p != 0) & (grad == torch.inf)).any(-1)
    assert not got[~has_inf & (torch.arange(37) != 3)].isnan().any()
    assert (got[4:][(p == 0)[4:]] == 0).all()


@pytest.mark.parametrize("name", OPS)
def test_another_dim_and_second_derivatives(name: str) -> None:
    x = torch.randn(300, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def slope(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: (getattr(automl_ext, name)(x, dim=0) * grad).square().sum())(x)

    def second(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: (slope(x) * grad).sum())(x)

    def batched(x: Tensor) -> Tensor:
        return torch.func.vmap(slope)(torch.stack([x, 2 * x]))

    for transformed in (slope, second, batched):
        got = transformed(x)
        with automl_ext.backend("reference"):
            torch.testing.assert_close(got, transformed(x))
    assert slope(x).abs().max() > 0.01


@pytest.mark.parametrize("name", OPS)
def test_compiled_for_any_length(name: str) -> None:
    def loss(x: Tensor) -> Tensor:
        return getattr(automl_ext, name)(x).square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (300, 100, 1000):
        x = torch.randn(6, length, generator=torch.Generator().manual_seed(4)).requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(loss(x), x))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("masked_dim", [0, 1])
def test_compiled_with_a_data_dependent_shape(name: str, masked_dim: int) -> None:
    def loss(x: Tensor, mask: Tensor) -> Tensor:
        return getattr(automl_ext, name)(x[mask] if masked_dim == 0 else x[:, mask]).square().sum()

    x = torch.randn(6, 700, generator=torch.Generator().manual_seed(6)).requires_grad_()
    mask = torch.arange(x.shape[masked_dim]) % 2 == 0
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        got = torch.autograd.grad(compiled(x, mask), x)
    torch.testing.assert_close(got, torch.autograd.grad(loss(x, mask), x))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("length", [8, 300])
def test_opcheck(name: str, length: int) -> None:
    trained = getattr(torch.ops.automl_ext, f"_{name}_trained").default
    backward = getattr(torch.ops.automl_ext, f"_{name}_backward").default
    for dtype in DTYPES:
        x = torch.randn(4, length, generator=torch.Generator().manual_seed(5)).to(dtype)
        p, support = trained(x, -1)
        assert support.numel() == (length > 256) * 4 * (8 + 64 * (4 + x.element_size()))
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(trained, (x, -1), test_utils=tests)
        torch.library.opcheck(backward, (x, p, -1, support), test_utils=tests)
    for empty in (torch.empty(0, length), torch.empty(()), torch.empty(3, 0)):
        torch.library.opcheck(trained, (empty, -1), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", OPS)
def test_a_support_of_another_layout_is_refused(name: str) -> None:
    x = torch.randn(4, 300)
    p, support = getattr(torch.ops.automl_ext, f"_{name}_trained")(x, -1)
    backward = getattr(torch.ops.automl_ext, f"_{name}_backward")
    for wrong in (support[:3], support.float(), support.repeat_interleave(2, 1)[:, ::2]):
        with pytest.raises(ValueError, match=f"{name}: support: expected what the forward pass returned"):
            backward(x, p, -1, wrong)


def _forged(support: Tensor, changes: dict[int, int]) -> Tensor:
    """Return ``support`` with changed 4-byte words in its second row: words 0 and 1 are the count, then indices."""
    forged = support.clone()
    words = forged.view(torch.int32)
    for word, value in changes.items():
        words[1, word] = value
    return forged


@pytest.mark.parametrize(("dtype", "threads"), [*zip(DTYPES, (1, 2, 1, 2), strict=True)], ids=str)
@pytest.mark.parametrize("name", OPS)
def test_a_forged_support_is_refused(name: str, dtype: torch.dtype, threads: int) -> None:
    x = torch.randn(400, 300, generator=torch.Generator().manual_seed(7)).to(dtype)
    p, support = getattr(torch.ops.automl_ext, f"_{name}_trained")(x, -1)
    backward = getattr(torch.ops.automl_ext, f"_{name}_backward")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for changes in (
            {0: 65},  # more entries than fit
            {0: 0, 1: 1},  # 2^32 entries
            {0: -2},
            {0: -2, 1: -1},
            {0: 1, 1: 0, 2: 300},  # an index past the end of the row
            {0: 1, 1: 0, 2: 2**31 - 1},
            {0: 1, 1: 0, 2: -1},
            {0: 1, 1: 0, 2: -(2**31)},
            {0: 64, 1: 0, **dict.fromkeys(range(2, 65), 5), 65: 300},
        ):
            with pytest.raises(ValueError, match=f"{name}: support: expected .* outside the rows"):
                backward(x, p, -1, _forged(support, changes))
        # Wrong indices inside the row give a wrong gradient but access no other memory.
        backward(x, p, -1, _forged(support, {0: 1, 1: 0, 2: 299}))
        misaligned = torch.empty(support.numel() + 1, dtype=torch.uint8)[1:].view_as(support)
        with pytest.raises(ValueError, match=f"{name}: support: expected what the forward pass returned"):
            backward(x, p, -1, misaligned.copy_(support))
        torch.testing.assert_close(backward(x, p, -1, support), backward(x, p, -1), rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)
