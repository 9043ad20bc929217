"""The sparse maps: masks, dtypes, shapes, errors and modules."""

import math

import pytest
import torch
from entmax_maps import every_map, scores

import automl_ext.ops.entmax as entmax

INF, NAN = math.inf, math.nan


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


@pytest.mark.usefixtures("each_backend")
def test_derivatives_in_the_parameter_with_masks():
    x = torch.tensor([[0.3, 0.1, -INF], [0.3, 0.1, 0.2]], dtype=torch.float64)
    parameter = torch.full((2, 1), 1.3, dtype=x.dtype, requires_grad=True)
    for f in (entmax.entmax_bisect, entmax.normmax_bisect, entmax.budget_bisect):
        (masked,) = torch.autograd.grad(f(x, parameter)[0, 0], parameter)
        (alone,) = torch.autograd.grad(f(x[:1, :2], parameter[:1])[0, 0], parameter)
        torch.testing.assert_close(masked, alone)
        assert masked[0] != 0


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
