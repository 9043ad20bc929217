"""The contract of the Gumbel ops: seeds, temperatures, masks, hard samples, shapes, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from automl_ext import gumbel_argmax, gumbel_entmax15, gumbel_softmax

INF, NAN = math.inf, math.nan
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
each_sample = pytest.mark.parametrize("sample", [gumbel_softmax, gumbel_entmax15])
each_op = pytest.mark.parametrize("op", [gumbel_softmax, gumbel_entmax15, gumbel_argmax])
pytestmark = pytest.mark.usefixtures("each_backend")


def some_logits(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---- seeds


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_three_ops_make_the_same_choices(dim: int, dtype: torch.dtype) -> None:
    logits = some_logits(5, 6, 7, dtype=dtype)
    index = gumbel_argmax(logits, dim, seed=11)
    assert index.dtype == torch.int64
    for sample in (gumbel_softmax, gumbel_entmax15):
        for tau in (0.1, 1.0, 10.0):
            soft, soft_index = sample(logits, tau, False, dim, seed=11, return_index=True)
            hard, hard_index = sample(logits, tau, True, dim, seed=11, return_index=True)
            assert torch.equal(soft_index, index)
            assert torch.equal(hard_index, index)
            assert torch.equal(hard, torch.zeros_like(logits).scatter(dim, index.unsqueeze(dim), 1))
            assert torch.equal(soft.gather(dim, index.unsqueeze(dim)), soft.amax(dim, keepdim=True))


@each_op
@pytest.mark.parametrize("dim", [0, 1])
def test_noise_depends_on_the_position_with_dim_last(op: Callable, dim: int) -> None:
    """A sample does not depend on the strides or on the position of dim."""
    logits = some_logits(5, 6, 7)
    last = logits.movedim(dim, -1)
    expected = op(last.contiguous(), dim=-1, seed=5)
    if op is not gumbel_argmax:
        expected = expected.movedim(-1, dim)
    for x in (logits, last.contiguous().movedim(-1, dim), logits.repeat_interleave(2, 2)[..., ::2]):
        torch.testing.assert_close(op(x, dim=dim, seed=5), expected, rtol=1e-6, atol=1e-7)


@each_op
def test_seed_is_an_int_or_a_tensor(op: Callable) -> None:
    logits = some_logits(50, 8)
    for seed in (0, 3, -3, -(2**63), 2**63 - 1):
        assert torch.equal(op(logits, seed=seed), op(logits, seed=torch.tensor(seed)))
    assert not torch.equal(op(logits, seed=3), op(logits, seed=4))
    assert not torch.equal(op(logits, seed=3), op(logits, seed=3 + 2**32))  # the upper half is used


@each_op
def test_generator_and_manual_seed(op: Callable) -> None:
    logits = some_logits(50, 8)
    g = torch.Generator().manual_seed(1)
    first, second = op(logits, generator=g), op(logits, generator=g)
    assert not torch.equal(first, second)
    assert torch.equal(op(logits, generator=torch.Generator().manual_seed(1)), first)

    torch.manual_seed(2)
    first, second = op(logits), op(logits)
    torch.manual_seed(2)
    assert torch.equal(op(logits), first)
    assert torch.equal(op(logits), second)
    assert not torch.equal(first, second)


@each_op
@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (1.0, TypeError, "seed: expected an int or a 0-dim int64 tensor, got float 1.0"),
        (True, TypeError, "seed: expected an int or a 0-dim int64 tensor, got bool True"),
        (torch.tensor([1]), TypeError, "seed: .*int64 tensor of shape \\(1,\\)"),
        (torch.tensor(1.0), TypeError, "seed: .*float32 tensor of shape"),
        (2**63, ValueError, "seed: expected an int of 64 bits"),
        (torch.zeros((), dtype=torch.int64, device="meta"), ValueError, "seed: expected a tensor on cpu, got .* meta"),
    ],
)
def test_bad_seeds(op: Callable, seed: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        op(some_logits(2, 3), seed=seed)
    with pytest.raises(ValueError, match=f"{op.__name__}: seed and generator: expected one of them, got both"):
        op(some_logits(2, 3), seed=1, generator=torch.Generator())


@each_op
def test_bad_generators(op: Callable) -> None:
    with pytest.raises(TypeError, match=f"{op.__name__}: generator: expected a torch.Generator, got int 3"):
        op(some_logits(2, 3), generator=3)
    on_meta = torch.empty(2, 3, device="meta")
    with pytest.raises(ValueError, match=f"{op.__name__}: generator: expected one on meta, got one on cpu"):
        op(on_meta, generator=torch.Generator())


@each_sample
@pytest.mark.parametrize("hard", [1, None, "soft", torch.tensor(True)], ids=str)
def test_hard_of_a_wrong_type(sample: Callable, hard: object) -> None:
    with pytest.raises(TypeError, match=f"{sample.__name__}: hard: expected a bool, got"):
        sample(some_logits(2, 3), hard=hard)


# ---- temperature


@each_sample
@pytest.mark.parametrize("tau", [0, 0.0, -1.0, NAN, INF, -INF])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_tau_is_positive_and_finite(sample: Callable, tau: float, as_tensor: bool) -> None:
    value = torch.tensor(float(tau)) if as_tensor else tau
    with pytest.raises(ValueError, match="tau: expected a positive finite temperature, got"):
        sample(some_logits(2, 3), value)


@each_sample
@pytest.mark.parametrize("tau", [True, "1", None, 1j, torch.ones(1).to_sparse(), torch.tensor(1), [1.0]], ids=str)
def test_tau_of_a_wrong_type(sample: Callable, tau: object) -> None:
    with pytest.raises(TypeError, match="tau: expected a float or a float tensor, got"):
        sample(some_logits(2, 3), tau)


@each_sample
def test_tau_per_row_of_a_wrong_shape_or_value(sample: Callable) -> None:
    for shape in ((3,), (2, 3), (2,), (3, 1), (1, 2, 1)):
        with pytest.raises(ValueError, match=r"tau: expected a shape that broadcasts to \(2, 1\), got"):
            sample(some_logits(2, 3), torch.ones(shape))
    with pytest.raises(ValueError, match=r"tau: expected a positive finite temperature, got -2\.0"):
        sample(some_logits(2, 3), torch.tensor([[1.0], [-2.0]]))


@each_sample
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("shape", "dim"), [((4, 5, 1), -1), ((4, 1, 1), -1), ((5, 1), 2), ((1,), 0), ((1, 5, 6), 0)])
def test_equal_taus_of_all_rows_are_one_tau(sample: Callable, hard: bool, shape: tuple[int, ...], dim: int) -> None:
    logits, c = some_logits(4, 5, 6).requires_grad_(), some_logits(4, 5, 6, seed=1)
    one, each = torch.tensor(0.7, requires_grad=True), torch.full(shape, 0.7, requires_grad=True)
    y, z = (sample(logits, tau, hard, dim, seed=3) for tau in (one, each))
    torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-6)
    want, got = (torch.autograd.grad(out, (logits, tau), c) for out, tau in ((y, one), (z, each)))
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-6)
    assert got[1].shape == shape
    torch.testing.assert_close(got[1].sum(), want[1], rtol=1e-5, atol=1e-5)


@each_sample
def test_tau_on_another_device(sample: Callable) -> None:
    with pytest.raises(ValueError, match="tau: expected a tensor on cpu, got one on meta"):
        sample(some_logits(2, 3), torch.ones((), device="meta"))


@each_sample
@pytest.mark.parametrize("tau_dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_gradient_to_tau(sample: Callable, tau_dtype: torch.dtype) -> None:
    """dτ = −(1/τ)·Σ dz·log y for softmax, −(2/τ)·Σ dz·√y for entmax. A float and a tensor give equal samples."""
    logits = some_logits(40, 6).requires_grad_()
    tau = torch.tensor(0.75, dtype=tau_dtype, requires_grad=True)
    y = sample(logits, tau, seed=3)
    assert torch.equal(y, sample(logits, 0.75, seed=3))
    c = some_logits(40, 6, seed=1)
    dx, dtau = torch.autograd.grad(y, (logits, tau), c)
    dz = dx.double() * 0.75
    factor = y.double().log() if sample is gumbel_softmax else 2 * y.double().sqrt()
    expected = -torch.where(y > 0, dz * factor, 0).sum() / 0.75
    assert dtau.dtype == tau_dtype
    assert dtau.shape == ()
    torch.testing.assert_close(
        dtau, expected.detach().to(tau_dtype), rtol=max(1e-5, torch.finfo(tau_dtype).eps), atol=0
    )


@each_sample
@pytest.mark.parametrize("hard", [False, True])
def test_masked_categories_keep_the_gradient_to_tau_finite(sample: Callable, hard: bool) -> None:
    logits, grad = some_logits(4, 6, dtype=torch.float64), some_logits(4, 6, dtype=torch.float64, seed=1)

    def tau_gradient(low: float) -> Tensor:
        tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        masked = logits.index_fill(1, torch.tensor([1, 4]), low)
        sample(masked, tau, hard, seed=3).backward(grad)
        assert tau.grad is not None
        return tau.grad

    assert tau_gradient(-INF).isfinite()
    torch.testing.assert_close(tau_gradient(-INF), tau_gradient(-1e4), rtol=1e-12, atol=0)  # neither is ever chosen


@each_sample
def test_low_temperature_sharpens(sample: Callable) -> None:
    logits = some_logits(100, 5)
    assert torch.equal(sample(logits, 1e-6, seed=1), sample(logits, hard=True, seed=1))
    torch.testing.assert_close(sample(logits, 1e6, seed=1), torch.full((100, 5), 0.2), rtol=0, atol=1e-4)


@each_sample
@pytest.mark.parametrize("tau", [1e-320, 1e-40, 1e-38])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_tau_below_the_smallest_float32_gives_one_hot_samples(sample: Callable, tau: float, as_tensor: bool) -> None:
    logits = some_logits(100, 5)
    value = torch.tensor(tau, dtype=torch.float64) if as_tensor else tau
    assert torch.equal(sample(logits, value, seed=1), sample(logits, hard=True, seed=1))
    assert torch.equal(sample(logits[:, :1], value, seed=1), torch.ones(100, 1))


@each_sample
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_gradients_at_a_tau_below_the_smallest_number(sample: Callable, as_tensor: bool, create_graph: bool) -> None:
    logits = some_logits(100, 5).requires_grad_()
    tau = torch.tensor(1e-46, dtype=torch.float64, requires_grad=True) if as_tensor else 1e-46
    leaves = (logits, tau) if as_tensor else (logits,)
    y = sample(logits, tau, seed=1)
    for x in torch.autograd.grad(y[:, 0].sum(), leaves, create_graph=create_graph):
        assert (x == 0).all()


# ---- masks, NaN, hard samples, shapes


@each_sample
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_categories_are_never_chosen(sample: Callable, dtype: torch.dtype) -> None:
    logits = some_logits(500, 9, dtype=dtype)
    mask = torch.rand(500, 9, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[mask.all(1), 0] = False
    logits = logits.masked_fill(mask, -INF).requires_grad_()
    soft, index = sample(logits, seed=2, return_index=True)
    assert (soft[mask] == 0).all()
    assert not mask.gather(1, index[:, None]).any()
    assert torch.equal(gumbel_argmax(logits, seed=2), index)
    assert (sample(logits, hard=True, seed=2)[mask] == 0).all()
    (gradient,) = torch.autograd.grad(soft, logits, some_logits(500, 9, dtype=dtype))
    assert (gradient[mask] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("categories", [3, 40])
def test_rows_that_are_all_masked(hard: bool, dtype: torch.dtype, categories: int) -> None:
    logits = torch.full((4, categories), -INF, dtype=dtype)
    logits[0] = 0
    y, index = gumbel_softmax(logits, hard=hard, seed=1, return_index=True)
    assert y[1:].isnan().all()
    assert y[0].float().sum() == pytest.approx(1, abs=0.02)
    assert (index[1:] == 0).all()
    y, index = gumbel_entmax15(logits, hard=hard, seed=1, return_index=True)
    assert (y[1:] == 0).all()
    assert y[0].float().sum() == pytest.approx(1, abs=0.02)
    assert (index[1:] == 0).all()
    assert (gumbel_argmax(logits, seed=1)[1:] == 0).all()


def test_gradient_of_a_row_that_is_all_masked() -> None:
    logits = torch.full((2, 3), -INF)
    logits[0] = 0
    logits.requires_grad_()
    for hard in (False, True):
        y = gumbel_entmax15(logits, hard=hard, seed=1)
        (gradient,) = torch.autograd.grad(y, logits, some_logits(2, 3))
        assert (gradient[1] == 0).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (40,)])
def test_softmax_gradient_of_a_row_that_is_all_masked_is_nan(hard: bool, shape: tuple[int, ...]) -> None:
    logits = torch.full(shape, -INF, requires_grad=True)
    tau = torch.tensor(0.5, requires_grad=True)
    y = gumbel_softmax(logits, tau, hard, seed=1)
    gradients = torch.autograd.grad(y, (logits, tau), torch.ones_like(y))
    assert all(gradient.isnan().all() for gradient in gradients)  # y is NaN too, as in torch.softmax


@each_sample
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("position", [0, 17, 39])
def test_nan_and_infinity_affect_only_their_row(sample: Callable, hard: bool, bad: float, position: int) -> None:
    logits = some_logits(3, 40)
    expected = sample(logits, hard=hard, seed=1)
    logits[1, position] = bad
    y, index = sample(logits, hard=hard, seed=1, return_index=True)
    assert y[1].isnan().all()
    assert torch.equal(y[[0, 2]], expected[[0, 2]])
    assert index[1] == position
    assert gumbel_argmax(logits, seed=1)[1] == position  # as in torch.argmax, NaN counts as the largest


@pytest.mark.usefixtures("each_backend")
@each_sample
@pytest.mark.parametrize("bad", [NAN, INF])
def test_the_gradient_of_a_row_with_nan_or_infinity_is_nan_where_masked_too(sample: Callable, bad: float) -> None:
    logits = torch.tensor([[bad, -INF, 1.0], [0.0, -INF, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(sample(logits, seed=1), logits, some_logits(2, 3))
    assert gradient[0].isnan().all()
    assert gradient[1, 1] == 0


@each_sample
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tau", [0.01, 1.0, 100.0])
def test_hard_is_exactly_one_hot(sample: Callable, dtype: torch.dtype, tau: float) -> None:
    y = sample(3 * some_logits(200, 37, dtype=dtype), tau, True, seed=1)
    assert y.dtype == dtype
    assert ((y == 0) | (y == 1)).all()
    assert (y.sum(-1) == 1).all()


@each_sample
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_straight_through_gradient_is_that_of_the_soft_sample(sample: Callable, dtype: torch.dtype) -> None:
    logits = some_logits(20, 9, dtype=dtype).requires_grad_()
    tau = torch.tensor(0.6, requires_grad=True)
    c = some_logits(20, 9, dtype=dtype, seed=1)
    hard, soft = (torch.autograd.grad(sample(logits, tau, h, seed=1), (logits, tau), c) for h in (True, False))
    torch.testing.assert_close(hard, soft, rtol=0, atol=0)
    assert soft[0].abs().sum() > 0


@each_sample
def test_zeros_of_entmax_are_exact(sample: Callable) -> None:
    """Entmax has exact zeros; softmax has none."""
    zeros = (sample(some_logits(100, 20), seed=1) == 0).sum()
    assert zeros == 0 if sample is gumbel_softmax else zeros > 500


@each_sample
def test_scalars_and_empty_tensors(sample: Callable) -> None:
    y, index = sample(torch.tensor(3.0), hard=True, seed=1, return_index=True)
    assert y == 1
    assert index.shape == ()
    assert index == 0
    for hard in (False, True):
        for shape in ((0,), (3, 0), (0, 3)):
            x = torch.zeros(shape, requires_grad=True)
            y = sample(x, hard=hard, seed=1)
            assert y.shape == shape
            y.sum().backward()
            assert x.grad is not None
            assert x.grad.shape == shape
    y, index = sample(torch.zeros(0, 3), seed=1, return_index=True)
    assert index.shape == gumbel_argmax(torch.zeros(0, 3), seed=1).shape == (0,)
    with pytest.raises(IndexError, match="at least one category along dim 1, got shape \\(3, 0\\)"):
        sample(torch.zeros(3, 0), seed=1, return_index=True)


@each_op
def test_bad_logits_and_dims(op: Callable) -> None:
    name = op.__name__
    for bad in (
        torch.ones(3, dtype=torch.int64),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3) * 1j,
        [1.0, 2.0],
        None,
    ):
        with pytest.raises(TypeError, match=f"{name}: logits: expected a float64, float32, bfloat16 or float16 tensor"):
            op(bad, seed=1)
    for dim in (2, -3):
        with pytest.raises(IndexError, match=rf"{name}: dim: expected a value in \[-2, 1\], got {dim}"):
            op(some_logits(2, 3), dim=dim, seed=1)
    with pytest.raises(TypeError, match=f"{name}: dim: expected an int, got float 1.0"):
        op(some_logits(2, 3), dim=1.0, seed=1)


def test_argmax_has_no_categories_or_gradient() -> None:
    with pytest.raises(IndexError, match="gumbel_argmax: logits: expected at least one category along dim 1"):
        gumbel_argmax(torch.zeros(3, 0), seed=1)
    assert not gumbel_argmax(some_logits(2, 3).requires_grad_(), seed=1).requires_grad


@each_sample
def test_index_has_no_gradient(sample: Callable) -> None:
    y, index = sample(some_logits(2, 3).requires_grad_(), seed=1, return_index=True)
    assert y.requires_grad
    assert not index.requires_grad
