"""Fenchel–Young losses: values, gradients, masks, ignored targets, reductions, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

import automl_ext
import automl_ext.ops.entmax as entmax

INF, NAN = math.inf, math.nan
LOSSES = {
    "sparsemax": (entmax.sparsemax_loss, entmax.SparsemaxLoss, entmax.sparsemax),
    "entmax15": (entmax.entmax15_loss, entmax.Entmax15Loss, entmax.entmax15),
    "sparsemax_bisect": (entmax.sparsemax_bisect_loss, entmax.SparsemaxBisectLoss, entmax.sparsemax),
    "entmax_bisect": (entmax.entmax_bisect_loss, entmax.EntmaxBisectLoss, entmax.entmax15),
    "normmax_bisect": (entmax.normmax_bisect_loss, entmax.NormmaxBisectLoss, entmax.normmax_bisect),
}
every_loss = pytest.mark.parametrize(("loss", "Loss", "sparse_map"), LOSSES.values(), ids=LOSSES.keys())
ENTROPIES = {
    entmax.sparsemax: lambda p: (1 - p.square().sum(-1)) / 2,
    entmax.entmax15: lambda p: (1 - p.pow(1.5).sum(-1)) / 0.75,
    entmax.normmax_bisect: lambda p: 1 - p.norm(dim=-1),
}


def batch(n=6, classes=5, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    X = scale * torch.randn(n, classes, dtype=dtype, generator=generator)
    return X, torch.randint(classes, (n,), generator=generator)


@every_loss
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e4])
def test_value_and_gradient(loss, Loss, sparse_map, scale):
    X, target = batch(scale=scale)
    X.requires_grad_()
    p, e = sparse_map(X), F.one_hot(target, 5)
    expected = ENTROPIES[sparse_map](p) + ((p - e) * X).sum(-1)
    got = loss(X, target)
    torch.testing.assert_close(got, expected, atol=1e-11, rtol=1e-9)
    assert (got >= 0).all()
    (grad,) = torch.autograd.grad(got.sum(), X)
    assert torch.equal(grad, p - e)


@every_loss
def test_large_scores_do_not_cancel(loss, Loss, sparse_map):
    # Multiples of 1/4, so that the scores plus the offset are exact in float32.
    X, target = batch(n=500, dtype=torch.float32, scale=4.0)
    X = X.round() / 4
    assert torch.equal(loss(X + 2.0**20, target), loss(X, target))


@every_loss
@pytest.mark.parametrize("large", [10.0**k for k in range(9)] + [1e30])
def test_one_large_score_does_not_reduce_the_precision_of_the_others(loss, Loss, sparse_map, large):
    X = torch.tensor([[large, 0.3, 0.1, -0.2, 0.5], [0.3, 0.1, large, 0.0, large]])
    for target in ([0, 2], [1, 0], [4, 4]):
        got, exact = loss(X, torch.tensor(target)), loss(X.double(), torch.tensor(target))
        torch.testing.assert_close(got, exact.float(), rtol=3e-7, atol=3e-7)


@every_loss
def test_losses_are_not_negative_after_rounding(loss, Loss, sparse_map):
    # The target leads by slightly less than the margin: the exact loss is smaller than the rounding error.
    X, _ = batch(n=20_000, dtype=torch.float32, scale=0.3)
    margin = 2 if sparse_map is entmax.entmax15 else 1
    X[:, 0] = X[:, 1:].amax(-1) + margin - 10 ** torch.linspace(-8, 0, len(X))
    assert (loss(X, torch.zeros(len(X), dtype=torch.int64)) >= 0).all()


@every_loss
def test_derivatives(loss, Loss, sparse_map):
    X, target = batch()
    X.requires_grad_()
    assert gradcheck(lambda x: loss(x, target), (X,))
    assert gradgradcheck(lambda x: loss(x, target), (X,))
    X = X.detach()
    torch.testing.assert_close(torch.func.jacfwd(loss)(X, target), torch.func.jacrev(loss)(X, target))
    gradient = torch.func.grad(lambda x: loss(x, target).square().sum())
    torch.testing.assert_close(torch.func.jacfwd(gradient)(X), torch.func.jacrev(gradient)(X))


def soft_batch(n=6, classes=5, dtype=torch.float64):
    X, target = batch(n, classes, dtype)
    y = (2 * torch.randn(n, classes, dtype=dtype, generator=torch.Generator().manual_seed(1))).softmax(-1)
    y[0], y[1] = F.one_hot(target[0], classes), torch.tensor([0.9, -0.3, 0.0, 1.0, 0.1])  # also weights of any sign
    return X, y


@every_loss
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_probabilities_as_targets(loss, Loss, sparse_map, backend):
    X, y = soft_batch()
    X.requires_grad_()
    y.requires_grad_()
    with automl_ext.backend(backend):
        each = torch.stack([loss(X, torch.full((6,), k)) for k in range(5)], -1)
        got = loss(X, y)
        torch.testing.assert_close(got, (y * each).sum(-1))
        torch.testing.assert_close(loss(X[2:].detach() + 2.0**30, y[2:].detach()), got[2:], atol=1e-5, rtol=0)
        for reduction, expected in (("none", got), ("sum", got.sum()), ("mean", got.mean())):
            torch.testing.assert_close(Loss(reduction=reduction)(X, y), expected)
        dx, dy = torch.autograd.grad(got.sum(), (X, y))
    torch.testing.assert_close(dx, y.sum(-1, keepdim=True) * sparse_map(X) - y)
    torch.testing.assert_close(dy, each)


@every_loss
def test_derivatives_for_probabilities(loss, Loss, sparse_map):
    X, y = soft_batch()
    X.requires_grad_()
    y.requires_grad_()
    assert gradcheck(loss, (X, y))
    assert gradgradcheck(loss, (X, y))
    X, y = X.detach(), y.detach()
    for argnum in (0, 1):
        forward, backward = torch.func.jacfwd(loss, argnum), torch.func.jacrev(loss, argnum)
        torch.testing.assert_close(forward(X, y), backward(X, y))
    torch.testing.assert_close(torch.vmap(loss)(X, y), loss(X, y))
    few = {"n_iter": 2} if Loss in (entmax.EntmaxBisectLoss, entmax.NormmaxBisectLoss) else {}
    compiled = torch.compile(Loss(**few), fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, y), Loss(**few)(X, y))


def test_probabilities_at_alpha_1_are_those_of_cross_entropy():
    X, y = soft_batch()
    torch.testing.assert_close(entmax.entmax_bisect_loss(X, y, 1), F.cross_entropy(X, y, reduction="none"))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_masked_classes_and_in_half_precision(loss, Loss, sparse_map, dtype):
    X = torch.tensor([[-INF, 0, 0.5], [0, -INF, 2.0], [NAN, 0, 0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([[0, 0.25, 0.75], [0.5, 0.5, 0], [0.5, 0.5, 0]], dtype=dtype)
    got = loss(X, y)
    assert got.dtype == dtype
    torch.testing.assert_close(got[0], loss(X[0, 1:].double(), y[0, 1:].float()).to(dtype))
    assert got[1] == INF
    assert got[2].isnan()
    (grad,) = torch.autograd.grad(got[0], X)
    assert grad[:2, 0].tolist() == [0, 0]
    assert loss(X[:0], y[:0]).shape == (0,)


def test_alpha_per_row_and_cross_entropy():
    X, target = batch()
    torch.testing.assert_close(entmax.entmax_bisect_loss(X, target, 1), F.cross_entropy(X, target, reduction="none"))
    alpha = torch.tensor([[1.0], [0.3], [1.5], [1.7], [2.0], [2.5]], dtype=X.dtype)
    one_by_one = [entmax.entmax_bisect_loss(x, y, a.item()) for x, y, a in zip(X, target, alpha, strict=True)]
    torch.testing.assert_close(entmax.entmax_bisect_loss(X, target, alpha), torch.stack(one_by_one))
    below = 0.3 * X[1:2].log_softmax(-1)  # arbitrary scores: the loss at alpha < 1 by its definition
    p = entmax.entmax_bisect(below, 0.3)
    entropy = (1 - p.pow(0.3).sum(-1)) / (0.3 * (0.3 - 1))
    definition = entropy + ((p - F.one_hot(target[1:2], 5)) * below).sum(-1)
    torch.testing.assert_close(entmax.entmax_bisect_loss(below, target[1:2], 0.3), definition)
    norms = [entmax.normmax_bisect_loss(x, y, a.item() + 1) for x, y, a in zip(X, target, alpha, strict=True)]
    torch.testing.assert_close(entmax.normmax_bisect_loss(X, target, alpha + 1), torch.stack(norms))


@every_loss
def test_zero_when_the_target_leads(loss, Loss, sparse_map):
    X = torch.tensor([[9.0, 1.0, -2.0]], requires_grad=True)
    got = loss(X, torch.tensor([0]))
    got.sum().backward()
    assert got == 0
    assert (X.grad == 0).all()


@every_loss
def test_masked_classes(loss, Loss, sparse_map):
    X = torch.tensor([[-INF, 0, 0.2], [0, -INF, 2.0], [-INF] * 3, [NAN, 0, 0]], requires_grad=True)
    got = loss(X, torch.tensor([1, 1, 0, 0]))
    torch.testing.assert_close(got[0], loss(X[0, 1:], torch.tensor(0)))
    assert got[1:3].tolist() == [INF, INF]
    assert got[3].isnan()
    (grad,) = torch.autograd.grad(got.sum(), X)
    assert grad[:3].isfinite().all()
    assert grad[0, 0] == 0


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(loss, Loss, sparse_map, dtype):
    X, target = batch(n=4096, dtype=dtype, scale=30.0)
    assert loss(X, target).dtype == dtype
    torch.testing.assert_close(loss(X, target), loss(X.double(), target).to(dtype))
    # In float16, the sum of 4096 losses overflows but their mean does not.
    torch.testing.assert_close(Loss()(X, target), Loss()(X.double(), target).to(dtype))
    X.requires_grad_()
    (grad,) = torch.autograd.grad(loss(X, target).sum(), X)
    assert grad.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(X, target).dtype == torch.float32
        assert Loss()(X, target).dtype == torch.float32


@every_loss
def test_leading_shapes(loss, Loss, sparse_map):
    X, target = batch(n=12)
    expected = loss(X, target)
    torch.testing.assert_close(loss(X.view(2, 3, 2, 5), target.view(2, 3, 2)), expected.view(2, 3, 2))
    torch.testing.assert_close(loss(X[0], target[0]), expected[0])
    torch.testing.assert_close(Loss()(X.view(3, 4, 5), target.view(3, 4)), expected.mean())
    empty = torch.randn(0, 5, requires_grad=True)
    loss(empty, torch.empty(0, dtype=torch.int64)).sum().backward()
    assert empty.grad.shape == (0, 5)


@every_loss
@pytest.mark.parametrize("ignore_index", [3, -100, torch.tensor(3)])
def test_ignored_targets(loss, Loss, sparse_map, ignore_index):
    X, target = batch()
    target[[1, 4]] = int(ignore_index)
    target[[0, 2, 3, 5]] = torch.tensor([0, 1, 2, 4])
    X[1] = NAN
    X.requires_grad_()
    kept = loss(X[[0, 2, 3, 5]], target[[0, 2, 3, 5]])
    none = Loss(ignore_index=ignore_index, reduction="none")(X, target)
    assert none[[1, 4]].tolist() == [0, 0]
    torch.testing.assert_close(none[[0, 2, 3, 5]], kept)
    torch.testing.assert_close(Loss(ignore_index=ignore_index, reduction="sum")(X, target), kept.sum())
    for reduction in ("mean", "elementwise_mean"):
        value = Loss(ignore_index=ignore_index, reduction=reduction)(X, target)
        torch.testing.assert_close(value, kept.mean())
    (grad,) = torch.autograd.grad(value, X)
    assert (grad[[1, 4]] == 0).all()
    assert grad[[0, 2, 3, 5]].isfinite().all()


def test_mean_of_only_ignored_rows_is_nan():
    X = torch.randn(2, 3, requires_grad=True)
    value = entmax.Entmax15Loss(ignore_index=1)(X, torch.tensor([1, 1]))
    value.backward()
    assert value.isnan()
    assert (X.grad == 0).all()


@every_loss
def test_vmap_and_compile(loss, Loss, sparse_map):
    torch._dynamo.reset()  # the limit of recompilations counts those of other tests, too
    X, target = batch()
    torch.testing.assert_close(torch.vmap(loss)(X, target), loss(X, target))
    gradient = torch.func.grad(loss)
    torch.testing.assert_close(torch.vmap(gradient)(X, target), sparse_map(X) - F.one_hot(target, 5).double())
    # Few halvings, because tracing 50 takes seconds.
    few = {"n_iter": 2} if Loss in (entmax.EntmaxBisectLoss, entmax.NormmaxBisectLoss) else {}
    module = Loss(ignore_index=int(target[0]), **few)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    a, b = X.clone().requires_grad_(), X.clone().requires_grad_()
    out, expected = compiled(a, target), module(b, target)
    out.backward()
    expected.backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(a.grad, b.grad)
    # Targets are not checked while tracing; one out of range gives NaN.
    for row in range(len(X)):
        assert compiled(a, target[:1].repeat(len(X)).index_fill(0, torch.tensor(row), 5)).isnan()


X, Y = torch.randn(2, 3), torch.tensor([0, 2])


@every_loss
@pytest.mark.parametrize(
    ("x", "target", "error", "text"),
    [
        (X, torch.tensor([0, 3]), IndexError, r"target: .*\[0, 2\], got 3"),
        (X, torch.tensor([-1, 0]), IndexError, r"target: .*got -1"),
        (
            X,
            torch.tensor([0.0, 1.0]),
            TypeError,
            r"target: expected .* int64 \(2,\), or .*, float \(2, 3\), got float32",
        ),
        (X, Y.int(), TypeError, "target"),
        (X, [0, 2], TypeError, "target"),
        (X, Y[:1], ValueError, r"target: expected shape \(2,\)"),
        (X, Y[:, None], ValueError, "target"),
        (X, torch.ones(3, 2), TypeError, r"target: .* got float32 tensor of shape \(3, 2\)"),
        (X, torch.ones(2, 3, dtype=torch.int64), ValueError, r"target: expected shape \(2,\)"),
        (X.long(), Y, TypeError, "X"),
        (X[0, 0], Y[0], ValueError, "X: expected at least one dim"),
    ],
)
def test_errors(loss, Loss, sparse_map, x, target, error, text):
    for f in (loss, Loss()):
        with pytest.raises(error, match=text):
            f(x, target)


def test_parameter_errors():
    with pytest.raises(ValueError, match="reduction: expected one of elementwise_mean, mean, sum, none"):
        entmax.SparsemaxLoss(reduction="average")
    with pytest.raises(ValueError, match="k: expected a positive int"):
        entmax.Entmax15Loss(k=0)(X, Y)
    with pytest.raises(ValueError, match="alpha: expected a number in"):
        entmax.EntmaxBisectLoss(alpha=0)(X, Y)
    with pytest.raises(ValueError, match="reduction: expected one of"):
        entmax.SparsemaxLoss(reduction=["mean"])
    for bad, error in ((1.5, TypeError), (None, TypeError), (2**63, ValueError)):
        with pytest.raises(error, match="SparsemaxLoss: ignore_index: expected an int"):
            entmax.SparsemaxLoss(ignore_index=bad)
    with pytest.raises(ValueError, match="alpha: the loss has no gradient in alpha"):
        entmax.entmax_bisect_loss(X, Y, torch.tensor(1.5, requires_grad=True))
    with pytest.raises(ValueError, match="alpha: the loss has no gradient in alpha"):
        torch.func.jacfwd(lambda alpha: entmax.entmax_bisect_loss(X, Y, alpha))(torch.tensor(1.5))
