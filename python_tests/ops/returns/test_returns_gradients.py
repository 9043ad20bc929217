"""Gradients of the returns family; torch.compile and torch.func."""

import math

import pytest
import returns_brute_force as brute
import torch
from torch.autograd import gradcheck, gradgradcheck

from automl_ext.ops import returns as R

GAMMA, LAM = 0.9, 0.7
DIFFERENTIABLE = {
    "discounted_returns": (
        ("rewards", "next_values"),
        lambda r, v, **k: R.discounted_returns(r, v, gamma=GAMMA, **k),
    ),
    "n_step_returns": (
        ("rewards", "next_values"),
        lambda r, v, **k: R.n_step_returns(r, v, gamma=GAMMA, n=3, **k)[0],
    ),
    "n_step_returns without bootstrap": (
        ("rewards",),
        lambda r, **k: R.n_step_returns(r, None, gamma=GAMMA, n=3, **k)[0],
    ),
    "gae": (
        ("rewards", "values", "next_values"),
        lambda r, v, w, **k: R.gae(r, v, w, gamma=GAMMA, lam=LAM, **k),
    ),
    "lambda_returns": (
        ("rewards", "next_values"),
        lambda r, v, **k: R.lambda_returns(r, v, gamma=GAMMA, lam=LAM, **k),
    ),
    "lambda_returns, lambda 0": (
        ("rewards", "next_values", "discounts"),
        lambda r, v, d, **k: R.lambda_returns(r, v, gamma=GAMMA, lam=0.0, discounts=d, **k),
    ),
    "lambda_returns with discounts": (
        ("rewards", "next_values", "discounts"),
        lambda r, v, d, **k: R.lambda_returns(r, v, gamma=GAMMA, lam=LAM, discounts=d, **k),
    ),
    "lambda_returns, lambda 1, with discounts": (
        ("rewards", "next_values", "discounts"),
        lambda r, v, d, **k: R.lambda_returns(r, v, gamma=GAMMA, lam=1.0, discounts=d, **k),
    ),
}
NAMES = list(DIFFERENTIABLE)
TARGETS = {
    "vtrace": (
        ("log_rhos", "rewards", "values", "next_values"),
        lambda *x, **k: R.vtrace(*x, gamma=GAMMA, lam=LAM, **k),
    ),
    "retrace": (
        ("log_rhos", "q_values", "rewards", "next_values"),
        lambda *x, **k: R.retrace(*x, gamma=GAMMA, lam=LAM, **k),
    ),
}
ALL = DIFFERENTIABLE | TARGETS


def tup(x):
    return x if isinstance(x, tuple) else (x,)


def arguments(name, T=9, B=4, **kwargs):
    """Return the float tensors, the flags and the function."""
    names, function = ALL[name]
    data = brute.batch(T, B, names=names, **kwargs)
    return [data[n] for n in names], {n: data[n] for n in brute.FLAGS}, function


def leaves(tensors):
    return [x.clone().requires_grad_() for x in tensors]


def weighted_sum(outputs):
    """Return a scalar with a different weight per element."""
    return sum((x * torch.linspace(1, 2 + i, x.numel()).to(x).view_as(x)).sum() for i, x in enumerate(outputs))


@pytest.mark.parametrize("flags", ["all", "no valid"])
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name, flags):
    tensors, masks, function = arguments(name)
    if flags == "no valid":
        del masks["valid"]
        assert gradcheck(lambda *x: function(*x, **masks), leaves(tensors))
        return
    # The return of gae at an invalid step is its value with gradient 0, which gradcheck cannot verify.
    f = lambda *x: tuple(torch.where(masks["valid"], y, 0) for y in tup(function(*x, **masks)))  # noqa: E731
    assert gradcheck(f, leaves(tensors))


@pytest.mark.parametrize("name", NAMES)
def test_gradgradcheck(name):
    tensors, masks, function = arguments(name, T=5, B=3)
    # Squared, because the outputs are linear in all inputs except the discounts.
    assert gradgradcheck(lambda *x: tuple(y**2 for y in tup(function(*x, **masks))), leaves(tensors))


def test_gradcheck_without_flags():
    tensors, _, _ = arguments("lambda_returns with discounts")
    f = lambda r, v, d: R.lambda_returns(r, v, None, None, GAMMA, LAM, discounts=d)  # noqa: E731
    assert gradcheck(f, leaves(tensors))
    assert gradgradcheck(f, leaves(tensors))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_zero_at_invalid_steps(name):
    tensors, masks, function = arguments(name, T=20)
    inputs = leaves(tensors)
    outputs = tup(function(*inputs, **masks))
    weighted_sum(outputs).backward()
    assert all((x.grad[~masks["valid"]] == 0).all() for x in inputs)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_ignored_values_does_not_reach_gradients(name):
    names, function = ALL[name]
    data = brute.batch(20, 4, names=names)
    masks = {n: data[n] for n in brute.FLAGS}
    corrupted = brute.corrupt(data)
    if "discounts" in names:  # V' of a terminated step is used if discounts are given
        corrupted["next_values"] = torch.where(data["valid"], data["next_values"], math.nan)
    gradients = []
    for d in (data, corrupted):
        inputs = leaves([d[n] for n in names])
        weighted_sum([torch.where(d["valid"], x, 0) for x in tup(function(*inputs, **masks))]).backward()
        gradients.append([x.grad for x in inputs])
    for want, got in zip(*gradients, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_all_dtypes(name, dtype):
    tensors, masks, function = arguments(name, T=20, dtype=dtype)
    gradients = []
    for x in (tensors, [x.double() for x in tensors]):
        inputs = leaves(x)
        sum(y.sum() for y in tup(function(*inputs, **masks))).backward()
        gradients.append([x.grad for x in inputs])
    slack = torch.finfo(dtype).eps * (8 if dtype == torch.float32 else 1)
    for got, want in zip(*gradients, strict=True):
        assert got.dtype == dtype
        assert ((got.double() - want).abs() <= slack * want.abs().clamp(min=1)).all()


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_detached(name):
    tensors, masks, function = arguments(name)
    assert not any(x.requires_grad for x in tup(function(*leaves(tensors), **masks)))


def test_n_step_discounts_have_no_gradient():
    tensors, masks, _ = arguments("n_step_returns")
    returns, discounts, last = R.n_step_returns(*leaves(tensors), gamma=GAMMA, n=3, **masks)
    assert returns.requires_grad
    assert not discounts.requires_grad
    assert not last.requires_grad


@pytest.mark.parametrize("requires_grad", [0, 1, 2])
def test_gradient_to_one_input_only(requires_grad):
    tensors, masks, function = arguments("gae")
    everywhere = leaves(tensors)
    weighted_sum(function(*everywhere, **masks)).backward()
    inputs = [x.clone().requires_grad_(i == requires_grad) for i, x in enumerate(tensors)]
    weighted_sum(function(*inputs, **masks)).backward()
    for i, (one, each) in enumerate(zip(inputs, everywhere, strict=True)):
        assert one.grad is None if i != requires_grad else torch.equal(one.grad, each.grad)


@pytest.mark.parametrize("output", [0, 1])
def test_gradient_of_one_output_only(output):
    tensors, masks, function = arguments("gae")
    inputs = leaves(tensors)
    outputs = function(*inputs, **masks)
    got = torch.autograd.grad(outputs[output].sum(), inputs, retain_graph=True)
    other = torch.zeros_like(outputs[1 - output])
    ones = torch.ones_like(other)
    pair = (ones, other) if output == 0 else (other, ones)
    for a, b in zip(got, torch.autograd.grad(outputs, inputs, pair), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_vmap_equals_a_loop(name):
    tensors, masks, function = arguments(name, T=6, B=12)
    split = [x.reshape(6, 3, 4) for x in (*tensors, *masks.values())]
    k = len(tensors)
    f = lambda *x: function(*x[:k], **dict(zip(masks, x[k:], strict=True)))  # noqa: E731
    got = tup(torch.vmap(f, in_dims=1, out_dims=1)(*split))
    for g, want in zip(got, tup(function(*tensors, **masks)), strict=True):
        torch.testing.assert_close(g.reshape(6, 12), want)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_of_grad_and_jacrev(name):
    tensors, masks, function = arguments(name, T=5, B=3)
    scalar = lambda *x: weighted_sum(tup(function(*x, **masks)))  # noqa: E731
    copies = [torch.stack([x, 2 * x]) for x in tensors]
    got = torch.vmap(torch.func.grad(scalar))(*copies)
    for i in range(2):
        torch.testing.assert_close(got[i], torch.func.grad(scalar)(*[x[i] for x in copies]))
    jacobian = torch.func.jacrev(lambda x: tup(function(x, *tensors[1:], **masks))[0])(tensors[0])
    want = torch.autograd.functional.jacobian(lambda x: tup(function(x, *tensors[1:], **masks))[0], tensors[0])
    torch.testing.assert_close(jacobian, want)


@pytest.mark.parametrize("name", TARGETS)  # the conformance suite compiles the functions that have gradients
@pytest.mark.slow
def test_compile_of_targets(name):
    tensors, masks, function = arguments(name, T=4, B=3, dtype=torch.float32)
    compiled = torch.compile(lambda *x: tup(function(*x, **masks)), fullgraph=True, dynamic=True, backend="aot_eager")
    for got, want in zip(compiled(*tensors), tup(function(*tensors, **masks)), strict=True):
        torch.testing.assert_close(got, want)
