"""mixed_op and cell_aggregate: skipped inputs, gradients, sums, layouts, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from automl_ext import cell_aggregate, mixed_op

pytestmark = pytest.mark.usefixtures("each_backend")
HALVES = (torch.bfloat16, torch.float16)
channels_last = torch.channels_last


def tensors(k: int, *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(k)]


def eager(inputs: list[Tensor | None], weights: Tensor) -> Tensor:
    return sum(w * x for x, w in zip(inputs, weights.unbind(), strict=True) if x is not None)


# ---- operations that were not run, and weights that are zero


def test_none_is_an_operation_that_was_not_run() -> None:
    a, b = tensors(2, 3, 4)
    weights = torch.tensor([0.5, 7.0, -2.0, 9.0], requires_grad=True)
    y = mixed_op([a, None, b, None], weights)
    torch.testing.assert_close(y, 0.5 * a - 2 * b)
    (gradient,) = torch.autograd.grad(y.sum(), weights)
    torch.testing.assert_close(gradient, torch.stack([a.sum(), torch.zeros(()), b.sum(), torch.zeros(())]))
    assert (gradient[[1, 3]] == 0).all()


def test_weight_of_a_none_is_ignored() -> None:
    (x,) = tensors(1, 5)
    weights = torch.tensor([math.nan, 2.0, math.inf], requires_grad=True)
    y = mixed_op([None, x, None], weights)
    assert torch.equal(y, 2 * x)
    (gradient,) = torch.autograd.grad(y.sum(), weights)
    assert gradient[0] == gradient[2] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [1, 7, 64, 1000])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_inputs_of_weight_zero_are_not_read(bad: float, n: int, zero: float) -> None:
    a, b = tensors(2, n)
    inputs = [a.requires_grad_(), torch.full((n,), bad).requires_grad_(), b.requires_grad_()]
    weights = torch.tensor([0.5, zero, 2.0])
    y = mixed_op(inputs, weights)
    torch.testing.assert_close(y, 0.5 * a + 2 * b)
    (c,) = tensors(1, n, seed=1)
    gradients = torch.autograd.grad(y, inputs, c)
    torch.testing.assert_close(gradients, (0.5 * c, torch.zeros(n), 2 * c))


def test_a_zero_weight_gets_its_gradient() -> None:
    """The gradient of a weight 0 is ⟨g, x⟩, as DARTS needs; it is not finite if x is not."""
    a, b = tensors(2, 6, 5)
    weights = torch.tensor([1.0, 0.0], requires_grad=True)
    (c,) = tensors(1, 6, 5, seed=1)
    (gradient,) = torch.autograd.grad(mixed_op([a, b], weights), weights, c)
    torch.testing.assert_close(gradient, torch.stack([(a * c).sum(), (b * c).sum()]))
    assert gradient[1] != 0
    (gradient,) = torch.autograd.grad(mixed_op([a, b * math.nan], weights), weights, c)
    torch.testing.assert_close(gradient[0], (a * c).sum())
    assert gradient[1].isnan()


def test_all_weights_zero() -> None:
    (x,) = tensors(1, 4)
    assert torch.equal(mixed_op([x * math.nan, x], torch.zeros(2)), torch.zeros(4))


# ---- sums


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("n", [5, 1000, 2100])
@pytest.mark.parametrize("k", [8, 19])  # 19: partial sums are kept in float32
def test_float32_weights_with_half_inputs_are_summed_in_float(dtype: torch.dtype, n: int, k: int) -> None:
    """The sum is rounded once to the dtype of the inputs: within half an ulp, plus the float32 error, of float64."""
    inputs = [x.requires_grad_() for x in tensors(k, n, dtype=dtype)]
    weights = torch.linspace(-1, 1, k).mul(1.001).requires_grad_()  # not representable in half precision
    y = mixed_op(inputs, weights)
    exact = eager([x.double() for x in inputs], weights.double())
    half_ulp = torch.finfo(dtype).eps / 2
    magnitude = eager([x.double().abs() for x in inputs], weights.double().abs())
    assert y.dtype == dtype
    assert ((y.double() - exact).abs() <= half_ulp * exact.abs() + 1e-6 * magnitude + 2e-7).all()

    (c,) = tensors(1, n, dtype=dtype, seed=1)
    for create_graph in (False, True):  # the kernel, and the differentiable composite
        *dx, dw = torch.autograd.grad(y, [*inputs, weights], c, retain_graph=True, create_graph=create_graph)
        assert dw.dtype == torch.float32
        for k, x in enumerate(inputs):
            products = x.double() * c.double()
            assert (dw[k].double() - products.sum()).abs() <= 1e-6 * products.abs().sum()
            expected = weights[k].double() * c.double()
            assert dx[k].dtype == dtype
            assert ((dx[k].double() - expected).abs() <= 1.001 * half_ulp * expected.abs() + 1e-7).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_weights_with_half_inputs(dtype: torch.dtype) -> None:
    inputs = tensors(3, 50, dtype=dtype)
    weights = torch.tensor([0.5, -0.25, 2.0], dtype=dtype, requires_grad=True)
    y = mixed_op(inputs, weights)
    torch.testing.assert_close(y, eager([x.float() for x in inputs], weights.float()).to(dtype))
    (dw,) = torch.autograd.grad(y.sum(), weights)
    assert dw.dtype == dtype


def test_partial_sums_do_not_overflow() -> None:
    big = torch.full((40,), 6e4, dtype=torch.float16)
    assert torch.equal(mixed_op([big, big, -big], torch.ones(3)), big)


def test_long_dot_products_keep_their_precision() -> None:
    """⟨g, x⟩ over a million elements: a single float32 accumulator would have an error of 1e-4 or more."""
    n = 2**20
    x = torch.rand(n, generator=torch.Generator().manual_seed(0))
    weights = torch.ones(1, requires_grad=True)
    (dw,) = torch.autograd.grad(mixed_op([x], weights), weights, torch.ones(n))
    assert abs(float(dw) / float(x.double().sum()) - 1) < 1e-6


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 70, 200])
@pytest.mark.parametrize("n", [11, 700])  # 700: whole and partial blocks of 1,024 elements
def test_many_inputs(k: int, n: int) -> None:
    inputs = [x.requires_grad_() for x in tensors(k, 3, n, dtype=torch.float64)]
    weights = torch.linspace(-1, 1, k, dtype=torch.float64, requires_grad=True)
    (c,) = tensors(1, 3, n, dtype=torch.float64, seed=1)
    results, expected = (
        (f(inputs, weights), *torch.autograd.grad(f(inputs, weights), [*inputs, weights], c)) for f in (mixed_op, eager)
    )
    torch.testing.assert_close(results, expected)


@pytest.mark.parametrize("create_graph", [False, True])
def test_inputs_that_share_a_weight(create_graph: bool) -> None:
    a, b = tensors(2, 7)
    weights = torch.tensor([0.5, 2.0], requires_grad=True)
    y = torch.ops.automl_ext.mixed_op([a, b], weights, [0, 0])
    (grad,) = torch.autograd.grad(y.sum(), weights, create_graph=create_graph)
    torch.testing.assert_close(grad, torch.stack([a.sum() + b.sum(), torch.tensor(0.0)]))


def test_one_tensor_twice() -> None:
    (x,) = tensors(1, 4)
    x.requires_grad_()
    weights = torch.tensor([2.0, 3.0], requires_grad=True)
    y = mixed_op([x, x], weights)
    torch.testing.assert_close(y, 5 * x)
    dx, dw = torch.autograd.grad(y.sum(), (x, weights))
    torch.testing.assert_close(dx, torch.full((4,), 5.0))
    torch.testing.assert_close(dw, x.sum().expand(2))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4), ()])
def test_empty_and_scalar_tensors(shape: tuple[int, ...]) -> None:
    inputs = [x.requires_grad_() for x in tensors(2, *shape)]
    weights = torch.tensor([2.0, 3.0], requires_grad=True)
    y = mixed_op(inputs, weights)
    assert y.shape == shape
    *dx, dw = torch.autograd.grad(y.sum(), [*inputs, weights])
    torch.testing.assert_close(y, eager(inputs, weights))
    torch.testing.assert_close(dw, torch.stack([x.sum() for x in inputs]))
    torch.testing.assert_close(dx, [torch.full(shape, 2.0), torch.full(shape, 3.0)])


def test_some_inputs_need_no_gradient() -> None:
    a, b, c = tensors(3, 4)
    b.requires_grad_()
    y = mixed_op([a, b, c], torch.tensor([1.0, 2.0, 3.0]))
    (gradient,) = torch.autograd.grad(y.sum(), b)
    assert torch.equal(gradient, torch.full((4,), 2.0))
    assert not mixed_op([a, c], torch.ones(2)).requires_grad


# ---- memory


@pytest.mark.parametrize("weights_need", [False, True])
def test_channels_last_is_kept(weights_need: bool) -> None:
    inputs = [x.contiguous(memory_format=channels_last).requires_grad_() for x in tensors(3, 2, 5, 4, 3)]
    weights = torch.ones(3, requires_grad=weights_need)
    y = mixed_op(inputs, weights)
    assert y.is_contiguous(memory_format=channels_last)
    c = torch.ones_like(y)
    for gradient in torch.autograd.grad(y, inputs, c):
        assert gradient.is_contiguous(memory_format=channels_last)


@pytest.mark.parametrize("first", [torch.contiguous_format, channels_last])
def test_mixed_layouts(first: torch.memory_format) -> None:
    """The result has the layout of the first input for any layout of the others."""
    a, b, c, d = tensors(4, 2, 5, 4, 3)
    wide = torch.stack([c, -c], -1).requires_grad_()
    turned = d.transpose(0, 3).contiguous().requires_grad_()
    row = tensors(1, 3, seed=2)[0].requires_grad_()
    leaves = [a.contiguous(memory_format=first).requires_grad_(), b.requires_grad_(), wide, turned, row]
    inputs = [*leaves[:2], wide[..., 0], turned.transpose(0, 3), row.expand(2, 5, 4, 3)]
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.25], requires_grad=True)
    y = mixed_op(inputs, weights)
    assert y.is_contiguous(memory_format=first)
    (cotangent,) = tensors(1, 2, 5, 4, 3, seed=1)
    gradients = torch.autograd.grad(y, [*leaves, weights], cotangent)
    expected = torch.autograd.grad(eager(inputs, weights), [*leaves, weights], cotangent)
    torch.testing.assert_close(y, eager(inputs, weights))
    torch.testing.assert_close(gradients, expected)


def saved_by(call: Callable[[], Tensor]) -> list[tuple[int, ...]]:
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.append(tuple(x.shape)) or x, lambda x: x):
        call()
    return sorted(shapes)


def test_inputs_are_saved_only_for_the_weights_gradient(each_backend: str) -> None:
    if each_backend == "reference":
        pytest.skip("the reference saves them all")
    inputs = [x.requires_grad_() for x in tensors(2, 40, 5)]
    weights = torch.ones(2)
    assert saved_by(lambda: mixed_op(inputs, weights)) == [(2,)]
    weights.requires_grad_()
    assert saved_by(lambda: mixed_op(inputs, weights)) == [(2,), (40, 5), (40, 5)]


def test_an_input_changed_in_place_is_an_error_in_backward() -> None:
    (x,) = tensors(1, 4)
    weights = torch.ones(1, requires_grad=True)
    y = mixed_op([x], weights)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ---- autocast


@pytest.mark.parametrize("order", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_autocast_promotes_mixed_dtypes(order: tuple[torch.dtype, torch.dtype]) -> None:
    """A float32 skip connection and a bfloat16 convolution are promoted, as in any sum under autocast."""
    a, b = (tensors(1, 6, dtype=dtype, seed=i)[0].requires_grad_() for i, dtype in enumerate(order))
    weights = torch.tensor([0.5, 2.0], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixed_op([a, None, b], torch.cat([weights[:1], weights]))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, 0.5 * a.float() + 2 * b.float())
    gradients = torch.autograd.grad(y.sum(), (a, b, weights))
    assert [g.dtype for g in gradients] == [*order, torch.float32]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights_dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_autocast_takes_weights_of_any_dtype(dtype: torch.dtype, weights_dtype: torch.dtype) -> None:
    (x,) = tensors(1, 6, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixed_op([x], torch.tensor([0.5], dtype=weights_dtype))
    assert torch.equal(y, 0.5 * x)


# ---- cells


def test_cell_is_the_sum_of_its_edges() -> None:
    xs = [x.requires_grad_() for x in tensors(5, 3, 4, dtype=torch.float64)]
    edges = [[xs[0], None, xs[1]], [None, None, xs[2]], (xs[3], xs[4], None)]
    weights = tensors(1, 3, 3, dtype=torch.float64, seed=1)[0].requires_grad_()
    (c,) = tensors(1, 3, 4, dtype=torch.float64, seed=2)

    def nested() -> Tensor:
        return sum(mixed_op(edge, w) for edge, w in zip(edges, weights.unbind(), strict=True))

    def results(y: Tensor) -> tuple[Tensor, ...]:
        return y, *torch.autograd.grad(y, [*xs, weights], c)

    torch.testing.assert_close(results(cell_aggregate(edges, weights)), results(nested()))
    # an edge of only skipped operations contributes nothing, while mixed_op would refuse it
    torch.testing.assert_close(cell_aggregate([[xs[0]], [None]], weights[:2, :1]), weights[0, 0] * xs[0])


# ---- errors

X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("inputs", "weights", "error", "message"),
    [
        ([None, None], torch.ones(2), ValueError, "inputs: expected at least one tensor, got only None"),
        ([], torch.ones(0), ValueError, "inputs: expected at least one tensor"),
        ([X], torch.ones(2), ValueError, r"inputs: expected as many as weights \(2\), got 1"),
        (5, torch.ones(2), TypeError, "inputs: expected a sequence, got int 5"),
        ([X, X[:1]], torch.ones(2), ValueError, r"inputs\[1\]: expected shape \(2, 3\) as inputs\[0\], got \(1, 3\)"),
        ([None, X, X.T], torch.ones(3), ValueError, r"inputs\[2\]: expected shape \(2, 3\) as inputs\[1\], got"),
        ([X, X.double()], torch.ones(2), TypeError, r"inputs\[1\]: expected torch.float32 as inputs\[0\], got .*64"),
        ([X, X.int()], torch.ones(2), TypeError, r"inputs\[1\]: expected a float64, .*, got int32 tensor"),
        ([X.bool()], torch.ones(1), TypeError, r"inputs\[0\]: expected a float64, .*, got bool tensor"),
        ([X, "x"], torch.ones(2), TypeError, r"inputs\[1\]: expected a float64, .*, got str 'x'"),
        ([X, X.to("meta")], torch.ones(2), ValueError, r"inputs\[1\]: expected a tensor on cpu, got one on meta"),
        ([X], torch.ones(1, device="meta"), ValueError, "weights: expected a tensor on cpu, got one on meta"),
        ([X], [1.0], TypeError, "weights: expected a 1-dim float tensor, got list"),
        ([X], torch.ones(1, 1), TypeError, r"weights: expected a 1-dim float tensor, got .* shape \(1, 1\)"),
        ([X], torch.ones(()), TypeError, "weights: expected a 1-dim float tensor"),
        ([X], torch.ones(1).int(), TypeError, "weights: expected a float64, .*, got int32"),
        ([X], torch.ones(1).double(), TypeError, "weights: expected torch.float32 for .* inputs, got .*64"),
        ([X.half()], torch.ones(1).double(), TypeError, "weights: expected torch.float16 or torch.float32 for"),
        ([X.double()], torch.ones(1), TypeError, "weights: expected torch.float64 for torch.float64"),
    ],
)
def test_errors_name_the_argument(inputs: object, weights: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="mixed_op: " + message):
        mixed_op(inputs, weights)


@pytest.mark.parametrize(
    ("inputs", "weights", "error", "message"),
    [
        ([[X], [X]], torch.ones(2), TypeError, "weights: expected a 2-dim float tensor, got float32"),
        ([[X, X], [X]], torch.ones(2, 2), ValueError, r"inputs: expected 2 edges of 2 .*, got edges of lengths \[2, 1"),
        ([[X]], torch.ones(2, 1), ValueError, r"inputs: expected 2 edges of 1 .*, got edges of lengths \[1\]"),
        ([[X], None], torch.ones(2, 1), TypeError, r"inputs\[1\]: expected a sequence, got NoneType None"),
        (None, torch.ones(2, 1), TypeError, "inputs: expected a sequence, got NoneType None"),
        ([[None], [None]], torch.ones(2, 1), ValueError, "inputs: expected at least one tensor"),
        ([[X], [X.T]], torch.ones(2, 1), ValueError, r"inputs\[1\]: expected shape"),
    ],
)
def test_errors_of_cells(inputs: object, weights: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="cell_aggregate: " + message):
        cell_aggregate(inputs, weights)


def test_checkpointing_stops_within_the_op() -> None:
    """The hook that saves tensors raises when the last one is computed again: the op must not run a second time."""
    inputs, weights = tensors(2, 3), torch.tensor([0.3, 0.7], requires_grad=True)
    expected = torch.autograd.grad(mixed_op(inputs, weights).sum(), weights)
    y = checkpoint(mixed_op, inputs, weights, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), weights), expected)
