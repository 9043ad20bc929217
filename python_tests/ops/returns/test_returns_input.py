"""Argument checks of the returns family and their messages."""

import math

import pytest
import torch

import automl_ext
from automl_ext.ops import returns as R

X = torch.zeros(4, 3)
F = torch.zeros(4, 3, dtype=torch.bool)
CALLS = {
    "discounted_returns": (R.discounted_returns, {"rewards": X, "next_values": X}, {"gamma": 0.9}),
    "n_step_returns": (R.n_step_returns, {"rewards": X, "next_values": X}, {"gamma": 0.9, "n": 2}),
    "gae": (R.gae, {"rewards": X, "values": X, "next_values": X}, {"gamma": 0.9, "lam": 0.9}),
    "lambda_returns": (
        R.lambda_returns,
        {"rewards": X, "next_values": X, "discounts": X},
        {"gamma": 0.9, "lam": 0.9},
    ),
    "vtrace": (
        R.vtrace,
        {"log_rhos": X, "rewards": X, "values": X, "next_values": X},
        {"gamma": 0.9, "lam": 0.9, "rho_clip": 1.0, "c_clip": 1.0},
    ),
    "retrace": (
        R.retrace,
        {"log_rhos": X, "q_values": X, "rewards": X, "next_values": X},
        {"gamma": 0.9, "lam": 0.9},
    ),
}
NAMES = list(CALLS)
FLAGS = {"terminated": F, "truncated": F, "valid": F}
FLOATS = [(op, name) for op in NAMES for name in CALLS[op][1]]
NUMBERS = [(op, name) for op in NAMES for name in CALLS[op][2] if name in ("gamma", "lam")]


def call(op, **changes):
    function, floats, numbers = CALLS[op]
    return function(**(floats | FLAGS | numbers | changes))


@pytest.mark.parametrize(("op", "name"), FLOATS)
def test_floats(op, name):
    for bad in ([0.0], X.int(), X.bool()):
        with pytest.raises(TypeError, match=f"{op}: {name}: expected .* got"):
            call(op, **{name: bad})
    with pytest.raises(TypeError, match="float64 tensor"):
        call(op, **{name: X.double()})
    with pytest.raises(ValueError, match=r"expected the shape of rewards \(.*\), got \(.*\)"):
        call(op, **{name: X[:, :2]})
    if name != "rewards":
        with pytest.raises(ValueError, match=f"{op}: {name}: expected a tensor on"):
            call(op, **{name: X.to("meta")})
        with pytest.raises(ValueError, match=f"{op}: {name}: expected the shape"):
            call(op, **{name: X[:, :1]})  # no broadcasting: [T, 1] for [T, B] is probably a mistake


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("op", NAMES)
def test_flags(op, name):
    with pytest.raises(TypeError, match=rf"{op}: {name}: expected a bool tensor, .*use {name}\.bool\(\)"):
        call(op, **{name: X})
    with pytest.raises(TypeError, match=f"{op}: {name}: expected a bool tensor, got float 0.5"):
        call(op, **{name: 0.5})
    with pytest.raises(ValueError, match=f"{op}: {name}: expected the shape of rewards"):
        call(op, **{name: F[:2]})
    with pytest.raises(ValueError, match=f"{op}: {name}: expected a tensor on"):
        call(op, **{name: F.to("meta")})


@pytest.mark.parametrize("op", NAMES)
def test_flags_may_be_none_only_where_documented(op):
    call(op, valid=None)
    for name in ("terminated", "truncated"):
        if op == "lambda_returns":
            call(op, **{name: None})
        else:
            with pytest.raises(TypeError, match=f"{op}: {name}: expected a bool tensor"):
                call(op, **{name: None, "discounts": None})
        call(op, **{name: None}, discounts=X)


@pytest.mark.parametrize(("op", "name"), NUMBERS)
def test_numbers(op, name):
    for bad in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"{op}: {name}: expected a number in \[0, 1\], got"):
            call(op, **{name: bad})
    for bad in (None, "0.9", True):
        with pytest.raises(TypeError, match=f"{op}: {name}: expected a float, got"):
            call(op, **{name: bad})
    for bad in (X.double(), X.int(), X.to_sparse()):
        with pytest.raises(TypeError, match=f"{op}: {name}: expected a .*float32 tensor like rewards, got"):
            call(op, **{name: bad})
    for bad in (X[:, 0], X[:2], X.unsqueeze(0)):
        with pytest.raises(ValueError, match=rf"{op}: {name}: expected a shape that broadcasts to .* \(4, 3\), got"):
            call(op, **{name: bad})
    with pytest.raises(ValueError, match=f"{op}: {name}: expected a tensor on cpu"):
        call(op, **{name: X.to("meta")})
    call(op, **{name: 1})


@pytest.mark.parametrize("name", ["rho_clip", "c_clip"])
def test_clips(name):
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"vtrace: {name}: expected a positive number"):
            call("vtrace", **{name: bad})
    with pytest.raises(TypeError, match=f"vtrace: {name}: expected a float"):
        call("vtrace", **{name: None})
    call("vtrace", **{name: math.inf})


def test_n():
    for bad in (0, -3):
        with pytest.raises(ValueError, match=f"n_step_returns: n: expected at least 1, got {bad}"):
            call("n_step_returns", n=bad)
    for bad in (2.0, True, None):
        with pytest.raises(TypeError, match="n_step_returns: n: expected an int"):
            call("n_step_returns", n=bad)
    call("n_step_returns", n=10**30)


@pytest.mark.parametrize("op", NAMES)
def test_time_dim(op):
    for bad in (2, -3):
        with pytest.raises(IndexError, match=rf"{op}: time_dim: expected a value in \[-2, 1\], got {bad}"):
            call(op, time_dim=bad)
    for bad in (0.0, None, True):
        with pytest.raises(TypeError, match=f"{op}: time_dim: expected an int"):
            call(op, time_dim=bad)
    scalars = {n: x[0, 0] for n, x in (CALLS[op][1] | FLAGS).items()}
    with pytest.raises(ValueError, match=f"{op}: rewards: expected at least the time dim"):
        call(op, **scalars)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_autocast_promotes_the_values_of_a_critic(backend: str) -> None:
    rewards, log_rhos = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
    values = torch.randn(6, 2).bfloat16()
    no = torch.zeros(6, 2, dtype=torch.bool)
    calls = {
        "gae": lambda v: automl_ext.gae(rewards, v, v, no, no, 0.9, 0.8)[0],
        "discounted": lambda v: automl_ext.discounted_returns(rewards, v, no, no, 0.9),
        "n_step": lambda v: automl_ext.n_step_returns(rewards, v, no, no, 0.9, 2)[0],
        "lambda": lambda v: automl_ext.lambda_returns(rewards, v, no, no, gamma=0.9, lam=0.8),
        "vtrace": lambda v: automl_ext.vtrace(log_rhos, rewards, v, v, no, no, 0.9)[0],
        "retrace": lambda v: automl_ext.retrace(log_rhos, v, rewards, v, no, no, 0.9),
        "td": lambda v: automl_ext.td_targets(rewards[0], v[:2, :], no[0], 0.9),
    }
    with automl_ext.backend(backend):
        for name, call in calls.items():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = call(values)
            assert found.dtype == torch.float32, name
            torch.testing.assert_close(found, call(values.float()), rtol=0, atol=0)
            with pytest.raises(TypeError, match=r"expected a b?float"):
                call(values)
