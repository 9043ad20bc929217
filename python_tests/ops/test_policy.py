"""The terms of policy-gradient losses beside torch's distributions, by hand, and with wrong arguments."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical

import automl_ext
from automl_ext import categorical_log_probs, policy_gradient_loss


@pytest.mark.parametrize("n", [1, 2, 18, 33, 1000])
def test_equals_the_distribution_of_torch(n):
    torch.manual_seed(0)
    logits = (3 * torch.randn(70, n)).requires_grad_()
    actions = torch.randint(n, (70,))
    log_probs, entropy = categorical_log_probs(logits, actions)
    want = Categorical(logits=logits.double())
    torch.testing.assert_close(log_probs.double(), want.log_prob(actions), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(entropy.double(), want.entropy(), rtol=1e-6, atol=2e-6)
    a, b = torch.randn(2, 70)
    (got,) = torch.autograd.grad((log_probs * a + entropy * b).sum(), logits)
    (exact,) = torch.autograd.grad((want.log_prob(actions) * a + want.entropy() * b).sum(), logits)
    torch.testing.assert_close(got, exact.float(), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("n", [3, 40])
def test_impossible_actions_do_not_spoil_the_entropy(n):
    logits = torch.zeros(2, n, dtype=torch.float64)
    logits[:, 2:] = -math.inf
    logits.requires_grad_()
    for backend in ("native", "reference"):
        with automl_ext.backend(backend):
            log_probs, entropy = categorical_log_probs(logits, torch.tensor([0, 1]))
        assert log_probs.tolist() == pytest.approx([-math.log(2)] * 2)
        assert entropy.tolist() == pytest.approx([math.log(2)] * 2)
    (grad,) = torch.autograd.grad(entropy.sum() + log_probs.sum(), logits)
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_rows_of_a_vocabulary(dtype: torch.dtype) -> None:
    """Long rows are summed in parts: with maxima that rise from part to part or fall, and parts that are masked."""
    torch.manual_seed(0)
    n = 20_011
    x = torch.randn(8, n, dtype=torch.float64)
    x[1] += torch.linspace(0, 300, n)
    x[2] -= torch.linspace(0, 300, n)
    x[3, :9000] = x[4, 9000:] = -math.inf
    x[5, :-1] = -math.inf  # one action is left
    x[6] = 1e4 * x[6]
    x[7] -= 1e5
    logits = x.to(dtype, copy=True).requires_grad_()
    actions = torch.tensor([0, n - 1, 7, n - 2, 8000, n - 1, 11, n - 1])
    log_probs, entropy = categorical_log_probs(logits, actions)
    wide = logits.detach().double().requires_grad_()
    with automl_ext.backend("reference"):
        exact = categorical_log_probs(wide, actions)
    a, b = torch.randn(2, 8).to(dtype)
    (got,) = torch.autograd.grad((log_probs * a + entropy * b).sum(), logits)
    (want,) = torch.autograd.grad((exact[0] * a.double() + exact[1] * b.double()).sum(), wide)
    eps = torch.finfo(dtype).eps * (4 if dtype == torch.float64 else 1)  # the reference in float64 is rounded, too
    for y, z in ((log_probs, exact[0]), (entropy, exact[1])):
        torch.testing.assert_close(y.double(), z, rtol=4 * eps, atol=4 * eps)
    # Logits of 1e4 and more have no better probabilities in float32.
    compute = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for row in range(8):
        largest = float(x[row][x[row].isfinite()].abs().max())
        near = (4 * eps + 2 * compute * largest) * float(want[row].abs().max() + 1e-9)
        torch.testing.assert_close(got[row].double(), want[row], rtol=0, atol=near)
    assert (got[logits == -math.inf] == 0).all()


@pytest.mark.parametrize("position", [0, 5000, 20_010])
def test_a_nan_in_a_long_row_is_not_lost(position: int) -> None:
    for value, rest in ((math.nan, 0.0), (math.nan, -math.inf), (math.inf, 0.0)):
        logits = torch.full((1, 20_011), rest)
        logits[0, position] = value
        log_probs, entropy = categorical_log_probs(logits.requires_grad_(), torch.tensor([3]))
        (grad,) = torch.autograd.grad(log_probs.sum(), logits)
        assert log_probs.isnan().all()
        assert entropy.isnan().all()
        assert grad.isnan().all()
    nothing = torch.full((1, 20_011), -math.inf)
    assert categorical_log_probs(nothing, torch.tensor([3]))[0].isnan().all()


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [8, 33, 200])
def test_logits_that_are_nan_or_infinite_do_not_give_finite_results(n: int, dtype: torch.dtype) -> None:
    """In every position: some lanes of the vectors used to lose a NaN."""
    logits = torch.zeros(n, n, dtype=dtype)
    logits.fill_diagonal_(math.nan).requires_grad_()
    log_probs, entropy = categorical_log_probs(logits, torch.zeros(n, dtype=torch.int64))
    assert log_probs.isnan().all()
    assert entropy.isnan().all()
    (grad,) = torch.autograd.grad(log_probs.sum(), logits)
    assert grad.isnan().all()
    infinite = torch.zeros(n, n, dtype=dtype).fill_diagonal_(math.inf)
    assert categorical_log_probs(infinite, torch.zeros(n, dtype=torch.int64))[0].isnan().all()


@pytest.mark.usefixtures("each_backend")
def test_gradients_in_float16_do_not_underflow() -> None:
    """The gradient of a scaled loss, as of torch.amp.GradScaler: A/n is too small for float16 before it is scaled."""
    torch.manual_seed(0)
    n = 65_536
    log_probs, values, advantages, returns = (0.01 * torch.randn(4, n)).half().unbind()
    leaves = [x.clone().requires_grad_() for x in (log_probs, values)]
    exact = [x.double().requires_grad_() for x in (log_probs, values)]

    def gradients(x, *constants):
        loss = policy_gradient_loss(x[0], torch.zeros_like(x[0]), x[1], *constants, old_log_probs=x[0].detach())[0]
        return torch.autograd.grad(loss, x, torch.tensor(1024.0, dtype=loss.dtype))

    got = gradients(leaves, advantages, returns)
    want = gradients(exact, advantages.double(), returns.double())
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).abs().mean() < 2e-3 * b.abs().mean()


@pytest.mark.parametrize("name", ["clip", "value_clip", "vf_coef", "ent_coef"])
@pytest.mark.parametrize("value", [torch.tensor(0.5, requires_grad=True), True], ids=["tensor", "bool"])
def test_coefficients_are_numbers(name: str, value: object) -> None:
    """A tensor would lose its gradient."""
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(TypeError, match=name):
        policy_gradient_loss(x, x, x, x.detach(), x.detach(), **{name: value})


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_clipped_objective_by_hand(backend):
    """The four cases of Schulman et al. 2017, figure 1, and a ratio inside the range."""
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1], dtype=torch.float64)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0], dtype=torch.float64)
    log_probs, zeros = ratio.log().requires_grad_(), torch.zeros_like(ratio)
    with automl_ext.backend(backend):
        loss, policy_loss, value_loss, entropy = policy_gradient_loss(
            log_probs, zeros, zeros, advantages, zeros, old_log_probs=zeros
        )
        (grad,) = torch.autograd.grad(5 * loss, log_probs)
    assert policy_loss.item() == loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 2.2) / 5)
    assert value_loss.item() == entropy.item() == 0
    assert -grad.numpy() == pytest.approx([0, 0.5, -1.5, 0, 2.2])
    assert [x.requires_grad for x in (policy_loss, value_loss, entropy)] == [False] * 3


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_value_loss_by_hand(backend):
    """A value inside the range, one whose change is too large and lowers the error, and one whose change raises it."""
    values = torch.tensor([1.1, 2.0, 2.0], dtype=torch.float64, requires_grad=True)
    returns, old = torch.tensor([2.0, 2.0, -1.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    zeros, weights = torch.zeros_like(returns), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    terms = {"weights": weights, "value_clip": 0.3, "vf_coef": 2.0, "ent_coef": 1.0}
    with automl_ext.backend(backend):
        loss, _, value_loss, entropy = policy_gradient_loss(
            zeros, zeros + 3, values, zeros, returns, old_values=old, **terms
        )
        (grad,) = torch.autograd.grad(loss, values)
    assert value_loss.item() == pytest.approx(0.5 * 0.9**2 + 0.25 * 0.7**2 + 0.25 * 3**2)
    assert entropy.item() == pytest.approx(3)
    assert loss.item() == pytest.approx(2 * value_loss.item() - 3)
    assert grad.numpy() == pytest.approx([2 * 0.5 * 2 * -0.9, 0, 2 * 0.25 * 2 * 3])


@pytest.mark.parametrize("n", [1, 5000, 100_003])
def test_sums_of_many_steps(n):
    torch.manual_seed(0)
    tensors = [torch.randn(n) for _ in range(6)]
    results = {}
    for dtype, backend in ((torch.float32, "native"), (torch.float64, "reference")):
        with automl_ext.backend(backend):
            *xs, old = (x.to(dtype) for x in tensors)
            results[dtype] = policy_gradient_loss(*xs, old_log_probs=old, old_values=old, ent_coef=0.1)
    for got, exact in zip(results[torch.float32], results[torch.float64], strict=True):
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(exact.item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("function", [lambda f: f, torch.func.grad], ids=["backward", "func.grad"])
@pytest.mark.slow
def test_compiled_for_batches_of_any_size(function):
    """The gradient of the entropy without weights is one number for all steps; its number of steps is symbolic."""

    def loss(log_probs, *others):
        return policy_gradient_loss(log_probs, *others, ent_coef=0.1)[0]

    compiled = torch.compile(function(loss), backend="aot_eager", fullgraph=True, dynamic=True)
    for n in (5, 6):
        xs = torch.randn(5, n).unbind()
        leaves = [x.clone().requires_grad_() for x in xs[:3]]
        if function is torch.func.grad:
            torch.testing.assert_close(compiled(*xs), function(loss)(*xs))
        else:
            expected = torch.autograd.grad(loss(*leaves, *xs[3:]), leaves)
            torch.testing.assert_close(torch.autograd.grad(compiled(*leaves, *xs[3:]), leaves), expected)


def test_wrong_arguments():
    logits, actions = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    for arguments, error, message in (
        ((logits, actions + 3), ValueError, r"actions: expected values in \[0, 3\), got 3"),
        ((logits, actions - 1), ValueError, r"actions: expected values in \[0, 3\), got -1"),
        ((logits, actions[:3]), ValueError, r"actions: expected shape \(4,\), got \(3,\)"),
        ((logits, actions.int()), TypeError, "actions: expected a int64 tensor, got int32 tensor"),
        ((logits.int(), actions), TypeError, "logits: expected a float64, float32"),
        ((logits[:, :0], actions), ValueError, "logits: expected shape"),
    ):
        for backend in ("native", "reference"):
            with automl_ext.backend(backend), pytest.raises(error, match=f"categorical_log_probs: {message}"):
                categorical_log_probs(*arguments)
    x = torch.zeros(4)
    five = (x, x, x, x, x)
    for arguments, keywords, error, message in (
        ((x, x, x[:3], x, x), {}, ValueError, "values: expected a tensor like log_probs"),
        (five, {"old_log_probs": x.double()}, ValueError, "old_log_probs: expected a tensor like log_probs"),
        (five, {"weights": x[None]}, ValueError, "weights: expected a tensor like log_probs"),
        (five, {"old_values": 1.0}, TypeError, "old_values: expected a float64, float32"),
        (five, {"clip": 0.0}, ValueError, "clip: expected a positive number"),
        (five, {"value_clip": -1.0}, ValueError, "value_clip: expected a positive number"),
        (five, {"vf_coef": "1"}, TypeError, "vf_coef: expected a float"),
        (five, {"vf_coef": math.nan}, ValueError, "vf_coef: expected a number"),
        (five, {"ent_coef": math.inf}, ValueError, "ent_coef: expected a number"),
        ((x, x, x, None, x), {}, TypeError, "advantages: expected a float64, float32"),
        ([y[:0] for y in five], {}, ValueError, "log_probs: expected at least one step without weights"),
    ):
        for backend in ("native", "reference"):
            with automl_ext.backend(backend), pytest.raises(error, match=f"policy_gradient_loss: {message}"):
                policy_gradient_loss(*arguments, **keywords)
