"""The sparse maps: values by their optimality conditions, derivatives, masks, dtypes, shapes, errors."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import automl_ext.ops.entmax as entmax
from automl_ext import _native

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

INF, NAN = math.inf, math.nan
MAPS = {
    "entmax15": entmax.entmax15,
    "sparsemax": entmax.sparsemax,
    "sparsemax_bisect": entmax.sparsemax_bisect,
    "entmax_bisect 0.5": lambda x, dim=-1: entmax.entmax_bisect(x, 0.5, dim),
    "entmax_bisect 1": lambda x, dim=-1: entmax.entmax_bisect(x, 1, dim),
    "entmax_bisect 1.3": lambda x, dim=-1: entmax.entmax_bisect(x, 1.3, dim),
    "entmax_bisect 2.5": lambda x, dim=-1: entmax.entmax_bisect(x, 2.5, dim),
    "entmax_bisect tensor": lambda x, dim=-1: entmax.entmax_bisect(x, torch.tensor(1.5), dim),
    "normmax_bisect": lambda x, dim=-1: entmax.normmax_bisect(x, 2, dim),
}
every_map = pytest.mark.parametrize("sparse_map", MAPS.values(), ids=MAPS.keys())


def scores(*shape, dtype=torch.float64, scale=1.0, seed=0):
    return scale * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_threshold(transformed, x, p, off):
    """x − transformed is one number, τ, on the support; elsewhere x is at most τ (the KKT conditions)."""
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
def test_one_large_score_takes_no_digits_from_the_others(large):
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
def test_float32_is_as_exact_beside_large_scores_and_offsets(name, offset):
    sparse_map = MAPS.get(name, entmax.budget_bisect)
    x = scores(20, 9, dtype=torch.float32) + offset  # rounded here, and exact in float64
    x[:, 3] += 10.0 ** torch.arange(20).remainder(9)
    got, exact = sparse_map(x).double(), sparse_map(x.double())
    assert (got - exact).abs().max() < 1e-6


def test_gradients_of_the_budget_beside_a_large_score():
    x = torch.tensor([[1e7, 0.3, 0.1, -0.2, 0.5]], requires_grad=True)
    budget = torch.tensor([[2.0]], requires_grad=True)
    g = torch.tensor([[5.0, 1, 2, 3, 6]])
    to_x, to_budget = torch.autograd.grad((entmax.budget_bisect(x, budget) * g).sum(), (x, budget))
    torch.testing.assert_close(to_x, torch.tensor([[0.0, -2, -1, 0, 3]]))  # g less its mean over the free entries
    torch.testing.assert_close(to_budget, torch.tensor([[3.0]]))


def test_huge_alpha_shares_among_the_largest():
    x = torch.tensor([0.3, 0.3, 0.0, -1.0])
    for alpha in (50.0, 1e6, 1e30):
        torch.testing.assert_close(entmax.entmax_bisect(x, alpha), torch.tensor([0.5, 0.5, 0, 0]))


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
    # The scores' differences are exact in float32, so a few roundings are all that is left.
    assert (error <= 8 * torch.finfo(torch.float32).eps * MAPS[name](x.double()).amax(-1)).all()


def test_few_iterations_and_no_normalization():
    x = scores(4, 6, scale=0.3)
    rough = entmax.entmax_bisect(x, 1.3, n_iter=3, ensure_sum_one=False)
    assert (rough.sum(-1) - 1).abs().max() > 1e-3
    torch.testing.assert_close(entmax.entmax_bisect(x, 1.3, n_iter=3).sum(-1), torch.ones(4, dtype=x.dtype))


@every_map
def test_first_and_second_derivatives(sparse_map):
    x = scores(3, 5, seed=1).requires_grad_()
    assert gradcheck(sparse_map, (x,))
    assert gradgradcheck(sparse_map, (x,))


def test_derivatives_in_alpha_and_budget():
    x = scores(4, 5, seed=1).requires_grad_()
    alpha = torch.tensor([[0.3], [1.0001], [1.5], [2.4]], dtype=x.dtype, requires_grad=True)
    budget = torch.tensor([[0.7], [1.5], [2.0], [3.3]], dtype=x.dtype, requires_grad=True)
    above_one = torch.tensor([[1.2], [1.5], [1.7], [2.6]], dtype=x.dtype).requires_grad_()
    for f, parameter in (
        (entmax.entmax_bisect, alpha),
        (entmax.normmax_bisect, above_one),
        (entmax.budget_bisect, budget),
    ):
        assert gradcheck(f, (x, parameter))
        assert gradgradcheck(f, (x, parameter))


def test_derivative_in_alpha_at_one():
    x, h = scores(1, 5), 1e-4
    g = scores(1, 5, seed=3)

    def at(alpha):
        return (g * entmax.entmax_bisect(x, alpha)).sum()

    alpha = torch.tensor(1.0, dtype=x.dtype, requires_grad=True)
    (got,) = torch.autograd.grad(at(alpha), alpha)
    torch.testing.assert_close(got, (at(1 + h) - at(1 - h)) / (2 * h), rtol=1e-6, atol=1e-7)


@every_map
def test_masks_nan_and_infinity(sparse_map):
    x = torch.tensor([[0.3, 0.1, -INF], [-INF] * 3, [NAN, 1, 2], [INF, 0, 1], [0.1, 0.2, 0.3]])
    x.requires_grad_()
    p = sparse_map(x)
    torch.testing.assert_close(p[0, :2], sparse_map(x[0, :2]))
    torch.testing.assert_close(p[4], sparse_map(x[4]))
    assert p[0, 2] == 0
    assert (p[1] == 0).all()
    assert p[2:4].isnan().all()
    (grad,) = torch.autograd.grad((p * torch.arange(3)).square().sum(), x, create_graph=True)
    assert grad[[0, 1, 4]].isfinite().all()
    assert grad[0, 2] == 0
    assert (grad[1] == 0).all()
    (second,) = torch.autograd.grad(grad[[0, 1, 4]].square().sum(), x)
    assert second[[0, 1, 4]].isfinite().all()


@pytest.mark.parametrize("n", [8, 100, 3000])
@pytest.mark.parametrize("name", ["entmax15", "sparsemax"])
def test_what_comes_in_outside_the_support_does_not_count(name, n):
    x = (3 * torch.randn(4, n)).requires_grad_()
    if not _native.use_native(x):
        pytest.skip("without the compiled kernels the gradient is PyTorch's")
    p = getattr(entmax, name)(x)
    clean = torch.where(p.detach() > 0, torch.randn(4, n), 0)
    assert (clean == 0).any()
    spoiled = torch.where(p.detach() > 0, clean, torch.tensor([INF, NAN]).repeat(n // 2))
    for create_graph in (False, True):  # the kernel, and what can be differentiated again
        expected, got = (
            torch.autograd.grad(p, x, g, retain_graph=True, create_graph=create_graph)[0] for g in (clean, spoiled)
        )
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_budget_with_masks():
    x = torch.tensor([[0.3, 0.1, -INF], [-INF] * 3, [NAN, 1, 2], [2.0, -INF, -INF]], requires_grad=True)
    p = entmax.budget_bisect(x, 1.5)
    torch.testing.assert_close(p[0], torch.tensor([0.85, 0.65, 0]))
    assert (p[1] == 0).all()
    assert p[2].isnan().all()
    assert p[3].tolist() == [1, 0, 0]
    (grad,) = torch.autograd.grad((p * torch.arange(3)).sum(), x)
    torch.testing.assert_close(grad[[0, 1, 3]], torch.tensor([[-0.5, 0.5, 0], [0, 0, 0], [0, 0, 0]]))


@every_map
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_autocast(sparse_map, dtype):
    x = scores(6, 10, dtype=dtype)
    p = sparse_map(x)
    assert p.dtype == dtype
    torch.testing.assert_close(p, sparse_map(x.double()).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        inside = sparse_map(x)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, sparse_map(x.float()))


@every_map
def test_shapes_and_dims(sparse_map):
    for shape in [(0,), (0, 3), (3, 0), (2, 0, 4)]:
        x = torch.randn(shape, requires_grad=True)
        p = sparse_map(x)
        p.sum().backward()
        assert p.shape == x.shape == x.grad.shape
    assert sparse_map(torch.tensor(3.0)) == 1
    assert sparse_map(torch.tensor(3.0), dim=0).shape == ()
    assert (sparse_map(torch.randn(4, 1)) == 1).all()
    x = scores(3, 4, 5)
    for dim in range(3):
        expected = sparse_map(x.movedim(dim, -1).contiguous()).movedim(-1, dim)
        torch.testing.assert_close(sparse_map(x, dim=dim), expected)
        torch.testing.assert_close(sparse_map(x, dim=dim - 3), expected)


def test_alpha_per_row():
    x = scores(3, 4, 5)
    alpha = 1 + torch.rand(3, 1, 5, generator=torch.Generator().manual_seed(0))
    p = entmax.entmax_bisect(x, alpha, dim=1)
    for i in range(3):
        for j in range(5):
            torch.testing.assert_close(p[i, :, j], entmax.entmax_bisect(x[i, :, j], alpha[i, 0, j].item()))
    torch.testing.assert_close(entmax.entmax_bisect(x, alpha[0, :, :], dim=1)[0], p[0])


@every_map
def test_func_transforms(sparse_map):
    x = scores(3, 5)

    def energy(row):
        return sparse_map(row).square().sum()

    gradient = torch.func.grad(energy)
    torch.testing.assert_close(torch.vmap(sparse_map)(x), sparse_map(x))
    torch.testing.assert_close(torch.vmap(gradient)(x), torch.stack([gradient(row) for row in x]))
    torch.testing.assert_close(torch.func.jacrev(gradient)(x[0]), torch.autograd.functional.hessian(energy, x[0]))


def test_parameter_under_vmap():
    x, parameter = scores(3, 5), torch.tensor([1.2, 2.0, 3.0], dtype=torch.float64)
    for f in (entmax.entmax_bisect, entmax.normmax_bisect, entmax.budget_bisect):
        torch.testing.assert_close(torch.vmap(f)(x, parameter), f(x, parameter.unsqueeze(-1)))
        with pytest.raises(ValueError, match=r"alpha|budget"):
            torch.vmap(f)(x, -parameter)


@pytest.mark.parametrize("f", [entmax.entmax_bisect, entmax.normmax_bisect, entmax.budget_bisect])
def test_compile_of_the_bisections(f):
    # Four halvings: tracing 50 takes seconds and shows nothing more.
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    a, b = scores(3, 5).requires_grad_(), scores(3, 5).requires_grad_()
    parameter = torch.tensor([[1.2], [2.0], [3.0]], dtype=a.dtype)
    for value in (parameter, 1.2, 2):
        out, expected = compiled(a, value, n_iter=4), f(b, value, n_iter=4)
        torch.testing.assert_close(out, expected)
        (got,), (wanted,) = (torch.autograd.grad(y.square().sum(), x) for y, x in ((out, a), (expected, b)))
        torch.testing.assert_close(got, wanted)
    # Values are not read while tracing: a bad one shows as NaN.
    assert compiled(a, -parameter, n_iter=4).isnan().all()


@every_map
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=12), st.floats(-100, 100), st.randoms())
def test_invariants(sparse_map, values, shift, random):
    x = torch.tensor(values, dtype=torch.float64)
    p = sparse_map(x)
    assert (p >= 0).all()
    assert abs(p.sum().item() - 1) < 1e-12
    assert p[x.argmax()] == p.max()
    # Alpha above 2 has an unbounded slope at the edge of the support: 1e-6, not 1e-12.
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


X = torch.randn(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: entmax.entmax15([1.0]), TypeError, r"entmax15: X: .*list"),
        (lambda: entmax.sparsemax(torch.arange(3)), TypeError, r"sparsemax: X: .*int64"),
        (lambda: entmax.entmax15(X, 2), IndexError, r"dim: .*\[-2, 1\], got 2"),
        (lambda: entmax.entmax15(X, 0.5), TypeError, "dim: expected an int"),
        (lambda: entmax.entmax15(X, -1, 0), ValueError, "k: expected a positive int, got 0"),
        (lambda: entmax.sparsemax(X, -1, 2.5), TypeError, "k: expected a positive int"),
        (lambda: entmax.entmax_bisect(X, 0), ValueError, r"alpha: expected a number in \(0, inf\), got 0"),
        (lambda: entmax.entmax_bisect(X, -0.5), ValueError, r"alpha: .*got -0\.5"),
        (lambda: entmax.entmax_bisect(X, NAN), ValueError, "alpha"),
        (lambda: entmax.entmax_bisect(X, INF), ValueError, "alpha"),
        (lambda: entmax.entmax_bisect(X, "2"), TypeError, "alpha: expected a float"),
        (lambda: entmax.entmax_bisect(X, torch.tensor([[1.5], [0.0]])), ValueError, r"alpha: .*\(0, inf\), got 0\.0"),
        (lambda: entmax.entmax_bisect(X, torch.tensor(1.5).to(torch.float8_e5m2)), TypeError, "alpha: .*float8_e5m2"),
        (lambda: entmax.entmax_bisect(X, ensure_sum_one=2), TypeError, "ensure_sum_one: expected a bool, got int 2"),
        (lambda: entmax.sparsemax_bisect(X, ensure_sum_one=None), TypeError, "ensure_sum_one: expected a bool"),
        (lambda: entmax.sparsemax_bisect([1.0]), TypeError, "^sparsemax_bisect: X: .*list"),
        (lambda: entmax.sparsemax_bisect(X, 2), IndexError, r"^sparsemax_bisect: dim: .*\[-2, 1\], got 2"),
        (lambda: entmax.entmax15(X.to_sparse()), TypeError, "X: expected a dense .*, got sparse_coo float32 tensor"),
        (lambda: entmax.entmax_bisect(X, torch.ones(2, 3)), ValueError, r"alpha: .*\(2, 1\)"),
        (lambda: entmax.entmax_bisect(X, torch.ones(2, 1, 1)), ValueError, "alpha: expected a shape"),
        (lambda: entmax.entmax_bisect(X, torch.ones(1, dtype=torch.bool)), TypeError, "alpha"),
        (lambda: entmax.entmax_bisect(X, n_iter=0), ValueError, "n_iter"),
        (lambda: entmax.sparsemax_bisect(X, n_iter=None), TypeError, "n_iter"),
        (lambda: entmax.normmax_bisect(X, 1), ValueError, r"alpha: .*\[1\.0001, inf\), got 1"),
        (lambda: entmax.budget_bisect(X, 3.5), ValueError, r"budget: .*\[0, 3\], got 3\.5"),
        (lambda: entmax.budget_bisect(X, torch.tensor(-1.0)), ValueError, "budget"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_modules():
    x = scores(2, 3, 4)
    for module, expected in (
        (entmax.Sparsemax(1, 2), entmax.sparsemax(x, 1)),
        (entmax.Entmax15(1, 2), entmax.entmax15(x, 1)),
        (entmax.SparsemaxBisect(1), entmax.sparsemax(x, 1)),
        (entmax.EntmaxBisect(1.2, 1, 30), entmax.entmax_bisect(x, 1.2, 1, 30)),
        (entmax.NormmaxBisect(3, 1), entmax.normmax_bisect(x, 3, 1)),
        (entmax.BudgetBisect(1.5, 1), entmax.budget_bisect(x, 1.5, 1)),
    ):
        assert torch.equal(module(x), expected)
    learned = entmax.EntmaxBisect(torch.nn.Parameter(torch.tensor(1.5)))
    learned(x).square().sum().backward()
    assert [name for name, _ in learned.named_parameters()] == ["alpha"]
    assert learned.alpha.grad != 0
