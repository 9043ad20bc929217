"""Tensors in place of the numbers gamma and lambda, and discounts in place of gamma and the terminations.

The values and derivatives for one gamma and lambda per step are in the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import returns_brute_force as brute
import torch
from torch import Tensor

from automl_ext.ops import returns as R

T, B = 9, 4
FAMILY: dict[str, tuple[tuple[str, ...], Callable]] = {
    "discounted_returns": (
        ("rewards", "next_values"),
        lambda *x, gamma, lam, **k: R.discounted_returns(*x, gamma, **k),
    ),
    "n_step_returns": (("rewards", "next_values"), lambda *x, gamma, lam, **k: R.n_step_returns(*x, gamma, 3, **k)),
    "gae": (("rewards", "values", "next_values"), lambda *x, gamma, lam, **k: R.gae(*x, gamma, lam, **k)),
    "lambda_returns": (("rewards", "next_values"), lambda *x, gamma, lam, **k: R.lambda_returns(*x, gamma, lam, **k)),
    "vtrace": (
        ("log_rhos", "rewards", "values", "next_values"),
        lambda *x, gamma, lam, **k: R.vtrace(*x, gamma, lam, **k),
    ),
    "retrace": (
        ("log_rhos", "q_values", "rewards", "next_values"),
        lambda *x, gamma, lam, **k: R.retrace(*x, gamma, lam, **k),
    ),
}
every_op = pytest.mark.parametrize("name", FAMILY)
GAMMAS, LAMS = torch.rand(2, B, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def arguments(name: str) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the floats, terminated and truncated, and valid."""
    names, _ = FAMILY[name]
    data = brute.batch(T, B, names=names)
    return [data[n] for n in names], [data["terminated"], data["truncated"]], data["valid"]


def tup(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


@every_op
@pytest.mark.parametrize("time_dim", [0, 1])
def test_one_per_environment_is_a_call_per_environment(name: str, time_dim: int) -> None:
    floats, ends, valid = arguments(name)
    call = FAMILY[name][1]
    columns = []
    for b in range(B):
        x, e = [f[:, b] for f in floats], [f[:, b] for f in ends]
        columns.append(tup(call(*x, *e, gamma=GAMMAS[b].item(), lam=LAMS[b].item(), valid=valid[:, b])))
    rates = [x if time_dim == 0 else x.unsqueeze(1) for x in (GAMMAS, LAMS)]
    moved = [x.movedim(0, time_dim) for x in (*floats, *ends)]
    got = tup(
        call(*moved, gamma=rates[0], lam=rates[1], valid=valid.movedim(0, time_dim), time_dim=time_dim),
    )
    for y, each in zip(got, zip(*columns, strict=True), strict=True):
        torch.testing.assert_close(y.movedim(time_dim, 0), torch.stack(each, 1))


@every_op
def test_discounts_replace_gamma_and_terminations(name: str) -> None:
    floats, (terminated, truncated), valid = arguments(name)
    call = FAMILY[name][1]
    discounts = torch.where(terminated, 0, 0.9).double()
    want = tup(call(*floats, terminated, truncated, gamma=0.9, lam=0.7, valid=valid))
    got = tup(call(*floats, terminated, truncated, gamma=0.1, lam=0.7, valid=valid, discounts=discounts))
    for y, z in zip(got, want, strict=True):
        torch.testing.assert_close(y, z)
    none = torch.zeros_like(terminated)
    want = tup(call(*floats, terminated, none, gamma=0.9, lam=0.7))
    got = tup(call(*floats, None, None, gamma=0.1, lam=0.7, discounts=discounts))
    for y, z in list(zip(got, want, strict=True))[:2]:  # the last step of an n-step return is another one
        torch.testing.assert_close(y, z)


@pytest.mark.parametrize("name", ["discounted_returns", "n_step_returns", "gae", "lambda_returns"])
def test_gradients_of_discounts_are_those_of_gamma(name: str) -> None:
    floats, (_, truncated), valid = arguments(name)
    call = FAMILY[name][1]
    gamma, discounts = (torch.full((T, B), 0.9, dtype=torch.float64, requires_grad=True) for _ in range(2))
    none = torch.zeros_like(truncated)
    one = tup(call(*floats, none, truncated, gamma=gamma, lam=0.7, valid=valid))[0]
    other = tup(call(*floats, none, truncated, gamma=0.1, lam=0.7, valid=valid, discounts=discounts))[0]
    torch.testing.assert_close(one, other)
    (want,), (got,) = (torch.autograd.grad(y.cos().sum(), x) for y, x in ((one, gamma), (other, discounts)))
    torch.testing.assert_close(got, want)
    assert want.any()


@pytest.mark.parametrize("name", ["vtrace", "retrace"])
def test_targets_of_tensors_are_detached(name: str) -> None:
    floats, ends, valid = arguments(name)
    rates = {"gamma": GAMMAS.clone().requires_grad_(), "lam": LAMS.clone().requires_grad_()}
    assert not any(y.requires_grad for y in tup(FAMILY[name][1](*floats, *ends, **rates, valid=valid)))


@every_op
def test_what_follows_a_cut_does_not_reach_earlier_steps(name: str) -> None:
    floats, (terminated, truncated), _ = arguments(name)
    truncated = truncated.clone()
    truncated[4] = True
    corrupted = [x.clone() for x in floats]
    for x in corrupted:
        x[5:] = torch.nan
    for want, got in zip(
        *(tup(FAMILY[name][1](*x, terminated, truncated, gamma=GAMMAS, lam=LAMS)) for x in (floats, corrupted)),
        strict=True,
    ):
        torch.testing.assert_close(got[:5], want[:5])
