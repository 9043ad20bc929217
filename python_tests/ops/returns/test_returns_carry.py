"""Invalid steps that carry: the recursion passes over them. Derivatives are in the conformance suite, too."""

from __future__ import annotations

import math

import pytest
import returns_brute_force as brute
import torch
from test_returns import FAMILY, tup
from torch import Tensor

import automl_ext
from automl_ext.ops import returns as R

# V-trace and Retrace have no such argument.
CARRYING = {name: calls for name, calls in FAMILY.items() if name not in ("vtrace", "retrace")}
every_op = pytest.mark.parametrize("name", CARRYING)
END = ("next_values", "terminated", "truncated")  # belong to the end of a transition
Batch = dict[str, Tensor]


def batch(name: str, T: int, B: int) -> Batch:
    return brute.batch(T, B, names=FAMILY[name][0], invalid=0.5)


def last_of_run(column: Batch, t: int) -> int:
    """Return the last step of the transition that starts at t."""
    last = len(column["valid"]) - 1
    while t < last and not column["valid"][t + 1] and not column["terminated"][t] and not column["truncated"][t]:
        t += 1
    return t


def carried(name: str, data: Batch) -> tuple[Tensor, ...]:
    """Take the invalid steps out of each column, and sum what remains by brute force."""
    slow, (T, B) = FAMILY[name][2], data["rewards"].shape
    results = [torch.zeros(T, B, dtype=torch.float64) for _ in range({"gae": 2, "n_step_returns": 3}.get(name, 1))]
    if name == "n_step_returns":
        results[2] = torch.arange(T)[:, None].expand(T, B).clone()
    for b in range(B):
        column = {n: x[:, b] for n, x in data.items()}
        steps = column["valid"].nonzero().flatten()
        if len(steps) == 0:
            continue
        ends = torch.tensor([last_of_run(column, t) for t in steps.tolist()])
        short = {n: x[ends if n in END else steps][:, None] for n, x in column.items()}
        for result, y in zip(results, tup(slow(short)), strict=True):
            result[steps, b] = y[:, 0] if y.is_floating_point() else ends[y[:, 0]]
    if name == "gae":
        results[1] = torch.where(data["valid"], results[1], data["values"])
    return tuple(results)


@pytest.mark.usefixtures("each_backend")
@every_op
@pytest.mark.parametrize("shape", [(1, 4), (2, 9), (8, 33), (33, 5)])
def test_brute_force(name: str, shape: tuple[int, int]) -> None:
    data = batch(name, *shape)
    for got, want in zip(tup(FAMILY[name][1](data, invalid="carry")), carried(name, data), strict=True):
        torch.testing.assert_close(got, want.to(got.dtype))


@pytest.mark.usefixtures("each_backend")
@every_op
def test_what_is_not_read(name: str) -> None:
    """Floats of invalid steps, except V' at the end of a run; V' of a step before a run; nor the gradients of these."""
    data = batch(name, 30, 7)
    used = torch.zeros_like(data["valid"])
    for b in range(7):
        column = {n: x[:, b] for n, x in data.items()}
        for t in column["valid"].nonzero().flatten().tolist():
            used[last_of_run(column, t), b] = True
    if "discounts" not in data:
        used &= ~data["terminated"]
    spoiled, leaves = dict(data), {}
    for i, n in enumerate(FAMILY[name][0]):
        bad = (math.nan, math.inf, -math.inf)[i % 3]
        spoiled[n] = torch.where(used if n == "next_values" else data["valid"], data[n], bad)
        leaves[n] = spoiled[n].clone().requires_grad_()
    call = FAMILY[name][1]
    want = tup(call(data, invalid="carry"))
    got = tup(call(spoiled | leaves, invalid="carry"))
    for x, y in zip(got, want, strict=True):
        assert torch.equal(x[data["valid"]], y[data["valid"]])
    got[0][data["valid"]].sum().backward()
    for n, x in leaves.items():
        assert x.grad.isfinite().all(), n
        assert (x.grad[~(used if n == "next_values" else data["valid"])] == 0).all(), n


@pytest.mark.usefixtures("each_backend")
@every_op
@pytest.mark.parametrize("valid", ["all", "none", "not given"])
def test_without_invalid_or_valid_steps(name: str, valid: str) -> None:
    data = batch(name, 9, 5)
    data["valid"] = torch.full_like(data["valid"], valid == "all")
    if valid == "not given":
        del data["valid"]
    call = FAMILY[name][1]
    for x, y in zip(tup(call(data, invalid="carry")), tup(call(data)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.usefixtures("each_backend")
def test_by_hand() -> None:
    """Two answers in one row, each with a masked token inside, and padding: γ = ½, λ = 1."""
    valid = torch.tensor([1, 0, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
    rewards = torch.tensor([1.0, math.nan, 2, math.nan, 4, math.nan, math.nan, 8, math.nan])
    terminated = torch.zeros_like(valid)
    terminated[3] = True  # in the run after the second token
    next_values = torch.tensor([math.nan, 5, math.nan, math.nan, math.nan, math.nan, 7, math.nan, 16])
    args = next_values, terminated, torch.zeros_like(valid), 0.5
    got = R.discounted_returns(rewards, *args, valid=valid, invalid="carry")
    assert got.tolist() == [1 + 0.5 * 2, 0, 2, 0, 4 + 0.5 * 16, 0, 0, 8 + 0.5 * 16, 0]
    returns, discounts, last = R.n_step_returns(rewards, *args, 1, valid=valid, invalid="carry")
    assert returns.tolist() == [1 + 0.5 * 5, 0, 2, 0, 4 + 0.5 * 7, 0, 0, 8 + 0.5 * 16, 0]
    assert discounts.tolist() == [0.5, 0, 0, 0, 0.5, 0, 0, 0.5, 0]
    assert last.tolist() == [1, 1, 3, 3, 6, 5, 6, 8, 8]


def test_compiled_ops_equal_the_reference_in_every_lane_and_dtype() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for names, call, _ in CARRYING.values():
            data = brute.batch(6, 37, names=names, invalid=0.5, dtype=dtype)
            results = []
            for backend in ("native", "reference"):
                leaves = {n: data[n].clone().requires_grad_() for n in names}
                with automl_ext.backend(backend):
                    outputs = tup(call(data | leaves, invalid="carry"))
                    outputs[0].sum().backward()
                results.append([*outputs, *(x.grad for x in leaves.values())])
            for a, b in zip(*results, strict=True):
                atol = 4 * torch.finfo(dtype).eps * float(b.detach().abs().max()) if b.is_floating_point() else 0
                torch.testing.assert_close(a, b, rtol=0, atol=atol)


@every_op
@pytest.mark.parametrize("word", ["skip", None, True])
def test_other_words_are_refused(name: str, word: object) -> None:
    with pytest.raises(ValueError, match=r'invalid: expected "cut" or "carry", got'):
        FAMILY[name][1](batch(name, 3, 2), invalid=word)


def test_raw_ops_refuse_the_gradient_of_discounts() -> None:
    x, flag = torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="returns: expected none with carry"):
        torch.ops.automl_ext._lambda_returns_backward(x, None, None, flag, x, x, x, 0.9, 0.9, True)
