"""The sparse maps: derivatives in the scores, alpha and budget; torch.func and torch.compile."""

import math

import pytest
import torch
from entmax_maps import every_map, scores
from torch._dynamo.utils import counters
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

import automl_ext.ops.entmax as entmax
from automl_ext import _native

INF, NAN = math.inf, math.nan


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
        forward, reverse = torch.func.jacfwd(f, (0, 1)), torch.func.jacrev(f, (0, 1))
        torch.testing.assert_close(forward(x, parameter), reverse(x, parameter))


def test_derivative_in_alpha_at_one():
    x, h = scores(1, 5), 1e-4
    g = scores(1, 5, seed=3)

    def at(alpha):
        return (g * entmax.entmax_bisect(x, alpha)).sum()

    alpha = torch.tensor(1.0, dtype=x.dtype, requires_grad=True)
    (got,) = torch.autograd.grad(at(alpha), alpha)
    torch.testing.assert_close(got, (at(1 + h) - at(1 - h)) / (2 * h), rtol=1e-6, atol=1e-7)


def test_budget_gradients_with_a_large_score():
    x = torch.tensor([[1e7, 0.3, 0.1, -0.2, 0.5]], requires_grad=True)
    budget = torch.tensor([[2.0]], requires_grad=True)
    g = torch.tensor([[5.0, 1, 2, 3, 6]])
    to_x, to_budget = torch.autograd.grad((entmax.budget_bisect(x, budget) * g).sum(), (x, budget))
    torch.testing.assert_close(to_x, torch.tensor([[0.0, -2, -1, 0, 3]]))  # g minus its mean over the free entries
    torch.testing.assert_close(to_budget, torch.tensor([[3.0]]))


@pytest.mark.parametrize("n", [8, 100, 3000])
@pytest.mark.parametrize("name", ["entmax15", "sparsemax"])
def test_incoming_gradient_outside_the_support_is_ignored(name, n):
    x = (3 * torch.randn(4, n)).requires_grad_()
    if not _native.use_native(x):
        pytest.skip("needs the compiled kernels")
    p = getattr(entmax, name)(x)
    clean = torch.where(p.detach() > 0, torch.randn(4, n), 0)
    assert (clean == 0).any()
    not_finite = torch.where(p.detach() > 0, clean, torch.tensor([INF, NAN]).repeat(n // 2))
    for create_graph in (False, True):  # the kernel, and the differentiable composite
        expected, got = (
            torch.autograd.grad(p, x, g, retain_graph=True, create_graph=create_graph)[0] for g in (clean, not_finite)
        )
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


@every_map
def test_func_transforms(sparse_map):
    x = scores(3, 5)

    def energy(row):
        return sparse_map(row).square().sum()

    gradient = torch.func.grad(energy)
    torch.testing.assert_close(torch.vmap(sparse_map)(x), sparse_map(x))
    torch.testing.assert_close(torch.vmap(gradient)(x), torch.stack([gradient(row) for row in x]))
    hessian = torch.autograd.functional.hessian(energy, x[0])
    torch.testing.assert_close(torch.func.jacrev(gradient)(x[0]), hessian)
    torch.testing.assert_close(torch.func.hessian(energy)(x[0]), hessian)  # forward over reverse
    torch.testing.assert_close(torch.func.jacfwd(sparse_map)(x), torch.func.jacrev(sparse_map)(x))


def test_parameter_under_vmap():
    x, parameter = scores(3, 5), torch.tensor([1.2, 2.0, 3.0], dtype=torch.float64)
    for f in (entmax.entmax_bisect, entmax.normmax_bisect, entmax.budget_bisect):
        torch.testing.assert_close(torch.vmap(f)(x, parameter), f(x, parameter.unsqueeze(-1)))
        with pytest.raises(ValueError, match=r"alpha|budget"):
            torch.vmap(f)(x, -parameter)


@pytest.mark.parametrize("loss", [entmax.entmax_bisect_loss, entmax.normmax_bisect_loss])
def test_a_changing_alpha_does_not_compile_a_loss_again(loss):
    torch._dynamo.reset()
    counters.clear()
    x, target = scores(3, 5).float(), torch.tensor([0, 1, 2])
    compiled = torch.compile(lambda x, alpha: loss(x, target, alpha), fullgraph=True, backend="aot_eager")
    for alpha in (1.2, 1.3, 1.4, 1.7, 1e39):
        torch.testing.assert_close(compiled(x, alpha), loss(x, target, alpha))
    if _native.is_loaded() and _native.current_backend() != "reference":
        assert counters["stats"]["unique_graphs"] <= 3


def test_values_are_checked_in_a_mode_that_is_no_trace():
    with FlopCounterMode(display=False), pytest.raises(ValueError, match="alpha: expected values in"):
        entmax.entmax_bisect(scores(3, 5), torch.tensor(-1.0))


@pytest.mark.parametrize("f", [entmax.entmax_bisect, entmax.normmax_bisect, entmax.budget_bisect])
def test_compile_of_the_bisections(f):
    torch._dynamo.reset()
    counters.clear()
    # Two halvings, because tracing 50 takes seconds.
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    a, b = scores(3, 5).requires_grad_(), scores(3, 5).requires_grad_()
    parameter = torch.tensor([[1.2], [2.0], [3.0]], dtype=a.dtype)
    for value in (parameter, 1.2, 1.3, 1.4, 1.7, 2):
        out, expected = compiled(a, value, n_iter=2), f(b, value, n_iter=2)
        torch.testing.assert_close(out, expected)
        (got,), (wanted,) = (torch.autograd.grad(y.square().sum(), x) for y, x in ((out, a), (expected, b)))
        torch.testing.assert_close(got, wanted)
    if _native.is_loaded() and _native.current_backend() != "reference":
        # A tensor, the first number, any other number, an integer.
        assert counters["stats"]["unique_graphs"] <= 4
    # Values are not checked while tracing; an invalid one gives NaN.
    assert compiled(a, -parameter, n_iter=2).isnan().all()
