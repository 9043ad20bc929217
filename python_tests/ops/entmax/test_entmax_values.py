"""The sparse maps: values against their optimality conditions, limits and invariants."""

import math

import pytest
import torch
from entmax_maps import MAPS, every_map, scores

import automl_ext
import automl_ext.ops.entmax as entmax
from automl_ext.ops import _checks

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

NAN = math.nan


def assert_threshold(transformed, x, p, off):
    """Check the KKT conditions: x − transformed is a constant τ on the support, and x is at most τ elsewhere."""
    gap = torch.where(p > 0, x - transformed, NAN)
    tau = gap.nanmean(-1, keepdim=True)
    torch.testing.assert_close(gap.nan_to_num(0), torch.where(p > 0, tau, 0), rtol=1e-9, atol=1e-9)
    assert (x <= tau + off)[p == 0].all()


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("alpha", [0.01, 0.5, 0.9999, 1.0001, 1.2, 1.5, 2.0, 2.5, 4.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_entmax_is_optimal(alpha, scale, as_tensor):
    x = scores(20, 9, scale=scale)
    p = entmax.entmax_bisect(x, torch.tensor(alpha, dtype=x.dtype) if as_tensor else alpha)
    torch.testing.assert_close(p.sum(-1), torch.ones(20, dtype=x.dtype))
    assert_threshold(p.pow(alpha - 1) / (alpha - 1), x, p, 1e-9)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("alpha", [1.01, 1.2, 2.0, 5.0])
def test_normmax_is_optimal(alpha, scale):
    x = scores(20, 9, scale=scale)
    p = entmax.normmax_bisect(x, alpha)
    torch.testing.assert_close(p.sum(-1), torch.ones(20, dtype=x.dtype))
    norm = p.pow(alpha).sum(-1, keepdim=True).pow(1 / alpha)
    assert_threshold((p / norm).pow(alpha - 1), x, p, 1e-9)


@pytest.mark.parametrize("budget", [0, 0.5, 1, 2.5, 5, 9])
def test_budget_is_a_clipped_shift(budget):
    x = scores(20, 9)
    p = entmax.budget_bisect(x, budget)
    torch.testing.assert_close(p.sum(-1), torch.full((20,), float(budget), dtype=x.dtype))
    free = (p > 1e-9) & (p < 1 - 1e-9)
    tau = torch.where(free, x - p, NAN).nanmean(-1, keepdim=True)
    known = ~tau.isnan().squeeze(-1)
    assert known.any() or budget in (0, 9)
    torch.testing.assert_close(p[known], (x - tau)[known].clamp(0, 1))
    torch.testing.assert_close(entmax.budget_bisect(x, 1), entmax.sparsemax(x))


@pytest.mark.parametrize("low", [-1e9, -1e30])
def test_very_low_scores(low):
    x = torch.tensor([0.3, 0.1, 0.0, low])
    for f in (entmax.entmax_bisect, entmax.normmax_bisect, entmax.budget_bisect):
        torch.testing.assert_close(f(x, 1.7)[:3], f(x[:3], 1.7))
        assert f(x, 1.7)[3] == 0
    torch.testing.assert_close(entmax.budget_bisect(x, 4), torch.ones(4))
    far_apart = torch.tensor([0, low, 2 * low, 3 * low])
    torch.testing.assert_close(entmax.budget_bisect(far_apart, 2), torch.tensor([1.0, 1, 0, 0]))


@pytest.mark.parametrize("large", [10.0**k for k in range(9)] + [1e30, 3e38])
def test_one_large_score_does_not_reduce_the_precision_of_the_others(large):
    x = torch.tensor([large, 0.3, 0.1, -0.2, 0.5])
    rest, budget_less_one = x[1:].double(), 1
    expected = torch.cat([torch.ones(1), entmax.budget_bisect(rest, budget_less_one).float()])
    if large > 1.5:
        torch.testing.assert_close(entmax.budget_bisect(x, 2), expected, rtol=0, atol=2e-7)
        torch.testing.assert_close(expected, torch.tensor([1, 1 / 3, 2 / 15, 0, 8 / 15]))
    for budget in (0.5, 1.5, 2, 3.3):
        torch.testing.assert_close(
            entmax.budget_bisect(x, budget), entmax.budget_bisect(x.double(), budget).float(), rtol=0, atol=5e-7
        )


@pytest.mark.parametrize("name", [*MAPS, "budget_bisect"])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, 1e6])
def test_float32_is_exact_with_large_scores_and_offsets(name, offset):
    sparse_map = MAPS.get(name, entmax.budget_bisect)
    x = scores(20, 9, dtype=torch.float32) + offset  # rounded here; exact after conversion to float64
    x[:, 3] += 10.0 ** torch.arange(20).remainder(9)
    got, exact = sparse_map(x).double(), sparse_map(x.double())
    assert (got - exact).abs().max() < 1e-6


def test_huge_alpha_is_uniform_over_the_largest_scores():
    x = torch.tensor([0.3, 0.3, 0.0, -1.0])
    for alpha in (50.0, 1e6, 1e30):
        torch.testing.assert_close(entmax.entmax_bisect(x, alpha), torch.tensor([0.5, 0.5, 0, 0]))


def test_large_alpha_takes_the_end_of_the_bracket_that_is_nearer_to_the_root():
    """Adjacent thresholds in float32 give sums of 0.98 and 1.47; exact, with more digits, are 0.021, 0 and 0.979."""
    x = torch.tensor([-0.3164026, -0.6478322, -0.2810770])
    for sum_one in (True, False):
        p = entmax.entmax_bisect(x, 20.0, ensure_sum_one=sum_one)
        torch.testing.assert_close(p, torch.tensor([0.0208, 0, 0.9792]), rtol=0, atol=0.03)


def test_alpha_one_is_softmax():
    x = scores(5, 7)
    torch.testing.assert_close(entmax.entmax_bisect(x, 1), x.softmax(-1))
    torch.testing.assert_close(entmax.entmax_bisect(x, torch.tensor(1.0)), x.softmax(-1))


def test_bisection_agrees_with_the_closed_forms():
    x = scores(50, 33, scale=0.7)
    for alpha, exact in ((1.5, entmax.entmax15), (2.0, entmax.sparsemax)):
        assert torch.equal(entmax.entmax_bisect(x, alpha), exact(x))
        torch.testing.assert_close(entmax.entmax_bisect(x, torch.tensor(alpha)), exact(x))


@pytest.mark.parametrize("name", ["entmax15", "sparsemax", "entmax_bisect 1.3", "entmax_bisect tensor"])
def test_long_flat_rows_do_not_cancel(name):
    x = scores(2, 100_000, dtype=torch.float32, scale=1e-3)
    error = (MAPS[name](x).double() - MAPS[name](x.double())).abs().amax(-1)
    # Differences of the scores are exact in float32, so only a few roundings remain.
    assert (error <= 8 * torch.finfo(torch.float32).eps * MAPS[name](x.double()).amax(-1)).all()


@pytest.mark.usefixtures("each_backend")
def test_few_iterations_and_no_normalization():
    x, one = scores(4, 6, scale=0.3), torch.ones(4, dtype=torch.float64)
    rough = entmax.entmax_bisect(x, 1.3, n_iter=3, ensure_sum_one=False)
    if automl_ext._native.use_native(x):  # the kernels do not use n_iter
        torch.testing.assert_close(rough, entmax.entmax_bisect(x, 1.3))
    else:
        assert (rough.sum(-1) - 1).abs().max() > 1e-3
    torch.testing.assert_close(entmax.entmax_bisect(x, 1.3, n_iter=3).sum(-1), one)
    exact = entmax.entmax_bisect(x, 1.3, ensure_sum_one=False)
    torch.testing.assert_close(exact.sum(-1), one)
    torch.testing.assert_close(exact, entmax.entmax_bisect(x, 1.3))


@every_map
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=12), st.floats(-100, 100), st.randoms())
def test_invariants(sparse_map, values, shift, random):
    x = torch.tensor(values, dtype=torch.float64)
    p = sparse_map(x)
    assert (p >= 0).all()
    assert abs(p.sum().item() - 1) < 1e-12
    assert p[x.argmax()] == p.max()
    # 1e-6 instead of 1e-12, because for alpha above 2 the slope at the edge of the support is unbounded.
    torch.testing.assert_close(sparse_map(x + shift), p, rtol=0, atol=1e-6)
    order = list(range(len(values)))
    random.shuffle(order)
    torch.testing.assert_close(sparse_map(x[order]), p[order], rtol=0, atol=1e-12)


def test_sparsity_grows_with_alpha():
    x = scores(200, 50)
    kept = [(entmax.entmax_bisect(x, alpha) > 0).sum().item() for alpha in (0.5, 1.0, 1.3, 1.5, 2.0, 3.0)]
    assert kept[0] == kept[1] == x.numel()
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(kept) - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [13, 40, 300, 5000])
@pytest.mark.usefixtures("each_backend")
def test_entries_at_the_threshold_are_exactly_zero(n, dtype):
    """They are outside the support, also for the second derivative."""
    for f, at_threshold in ((entmax.entmax15, 0.0), (entmax.sparsemax, 0.75)):
        x = torch.full((2, n), at_threshold, dtype=dtype)
        x[:, [0, 1, 9, n - 1]] = 1.0
        x[:, [4, 6, 8, 11]] = -1.0
        x[1, x[1] == at_threshold] = -3.0
        p = f(x.requires_grad_())
        torch.testing.assert_close(p, torch.where(x == 1, 0.25, 0).to(dtype))
        assert torch.equal(p > 0, x == 1)
        g = scores(n, dtype=dtype)
        (first,) = torch.autograd.grad((p * p * g).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * g.roll(3)).sum(), x)
        torch.testing.assert_close(first[0], first[1])
        torch.testing.assert_close(second[0], second[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_budget_at_both_ends_is_exact(dtype):
    for x in (torch.zeros(1, 4, dtype=dtype), scores(3, 4).to(dtype)):
        assert (entmax.budget_bisect(x, 0) == 0).all()
        assert (entmax.budget_bisect(x, 4) == 1).all()


@pytest.mark.parametrize("f", [entmax.entmax15, entmax.sparsemax])
def test_reference_on_a_device_without_float64(f, monkeypatch):
    x = scores(20, 30, dtype=torch.float32)
    with automl_ext.backend("reference"):
        expected = f(x)
        monkeypatch.setattr(_checks, "NO_FLOAT64", ("cpu",))
        monkeypatch.setattr(torch.Tensor, "double", None)
        torch.testing.assert_close(f(x), expected)
