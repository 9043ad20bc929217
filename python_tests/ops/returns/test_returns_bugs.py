"""Bugs of other libraries, one test each."""

import math

import pytest
import torch

from automl_ext.ops import returns as R

N = torch.zeros(4, dtype=torch.bool)
AT1 = torch.tensor([False, True, False, False])
R1 = torch.ones(4, dtype=torch.float64)
V9 = torch.full((4,), 9.0, dtype=torch.float64)
ZERO = torch.zeros(4, dtype=torch.float64)


def calls(next_values, terminated, truncated, **kwargs):
    """Return the first output of every function on four steps of reward 1 with values 0."""
    args = (next_values, terminated, truncated)
    return {
        "discounted": R.discounted_returns(R1, *args, 1.0, **kwargs),
        "n_step": R.n_step_returns(R1, *args, 1.0, 4, **kwargs)[0],
        "gae": R.gae(R1, ZERO, *args, 1.0, 1.0, **kwargs)[0],
        "lambda": R.lambda_returns(R1, *args, 1.0, 1.0, **kwargs),
        "vtrace": R.vtrace(ZERO, R1, ZERO, *args, 1.0, **kwargs)[0],
        "retrace": R.retrace(ZERO, ZERO, R1, *args, 1.0, **kwargs),
    }


def at_the_end_only(terminated, truncated):
    """Return V' = 9 at cuts and 0 elsewhere."""
    cut = terminated | truncated
    cut[-1] = True
    return torch.where(cut, V9, 0)


def test_truncation_is_not_termination():
    for name, x in calls(at_the_end_only(N, AT1), N, AT1).items():
        assert x.tolist() == [11.0, 10.0, 11.0, 10.0], name


def test_termination_does_not_bootstrap():
    for name, x in calls(at_the_end_only(AT1, N), AT1, N).items():
        assert x.tolist() == [2.0, 1.0, 11.0, 10.0], name


def test_truncation_cuts_the_episode():
    """Steps after a truncation belong to another episode and must not change the steps before it."""
    huge = torch.where(torch.arange(4) < 2, R1, 1e6)
    for function in (
        lambda r: R.discounted_returns(r, V9, N, AT1, 1.0),
        lambda r: R.n_step_returns(r, V9, N, AT1, 1.0, 4)[0],
        lambda r: R.gae(r, ZERO, V9, N, AT1, 1.0, 0.9)[0],
        lambda r: R.lambda_returns(r, V9, N, AT1, 1.0, 0.9),
        lambda r: R.vtrace(ZERO, r, ZERO, V9, N, AT1, 1.0)[0],
        lambda r: R.vtrace(ZERO, r, ZERO, V9, N, AT1, 1.0)[1],
        lambda r: R.retrace(ZERO, ZERO, r, V9, N, AT1, 1.0),
    ):
        assert torch.equal(function(R1)[:2], function(huge)[:2])


def test_terminated_wins_over_truncated():
    both = calls(V9, AT1, AT1)
    alone = calls(V9, AT1, N)
    for name, x in both.items():
        assert torch.equal(x, alone[name]), name


@pytest.mark.parametrize("flags", [(AT1, N), (N, AT1)], ids=["terminated", "truncated"])
def test_vtrace_does_not_leak_the_next_episode(flags):
    """torchrl #4209: the policy advantage at the end of an episode used vs of the next episode."""
    quiet, loud = ZERO, torch.tensor([0.0, 0.0, 1e6, 1e6], dtype=torch.float64)
    for a, b in zip(
        R.vtrace(ZERO, R1, quiet, V9, *flags, 0.9),
        R.vtrace(ZERO, R1, loud, V9, *flags, 0.9),
        strict=True,
    ):
        assert torch.equal(a[:2], b[:2])


@pytest.mark.parametrize("flags", [(AT1, N), (N, AT1)], ids=["terminated", "truncated"])
def test_n_step_windows_do_not_cross_an_episode(flags):
    """A bug in the rainbow of cleanrl, and FastTD3 #6 and #7."""
    _, discounts, last = R.n_step_returns(R1, V9, *flags, 0.5, 3)
    assert last.tolist() == [1, 1, 3, 3]
    ended = flags[0][1].item()
    assert discounts.tolist() == [0.0 if ended else 0.25, 0.0 if ended else 0.5, 0.25, 0.5]


def test_n_step_keeps_the_last_starts():
    """The last n - 1 starts have shorter windows; they are neither dropped nor wrapped around."""
    returns, discounts, last = R.n_step_returns(R1, V9, N, N, 0.5, 3)
    assert last.tolist() == [2, 3, 3, 3]
    assert discounts.tolist() == [0.125, 0.125, 0.25, 0.5]
    assert returns.tolist() == [1.75 + 9 / 8, 1.75 + 9 / 8, 1.5 + 9 / 4, 1 + 9 / 2]


def test_next_step_reset_transitions_are_ignored():
    """cleanrl #499: the step after a done (reward 0, action ignored) was used as a transition."""
    valid = torch.tensor([True, True, False, True])
    for name, x in calls(V9, AT1, N, valid=valid).items():
        assert x[2] == 0, name
        unmasked = calls(V9, AT1, N)[name]
        assert torch.equal(x[:2], unmasked[:2]), name


def test_step_before_an_invalid_one_bootstraps_even_if_not_done():
    valid = torch.tensor([True, True, False, True])
    for name, x in calls(at_the_end_only(N, AT1), N, N, valid=valid).items():
        assert x.tolist() == [11.0, 10.0, 0.0, 10.0], name


@pytest.mark.usefixtures("each_backend")
def test_retrace_does_not_use_the_q_value_of_its_own_step():
    """It cancels: an infinite one, of a forbidden action, must not become NaN."""
    q, ends = torch.full_like(R1, -math.inf), torch.ones_like(N)
    assert R.retrace(ZERO, q, R1, V9, ends, N, 1.0).equal(R1)


def test_retrace_uses_the_ratio_of_the_next_step():
    """A common off-by-one error: the correction at t uses rho at t + 1, not at t."""
    never = torch.tensor([-math.inf, 0.0, 0.0, 0.0], dtype=torch.float64)
    got = R.retrace(never, ZERO, R1, ZERO, N, N, 1.0)
    assert got.tolist() == [4.0, 3.0, 2.0, 1.0]
    got = R.retrace(never.roll(1), ZERO, R1, ZERO, N, N, 1.0)
    assert got.tolist() == [1.0, 3.0, 2.0, 1.0]


def test_next_values_of_other_steps_are_not_read_by_discounted_returns():
    """V' is used only at cuts; NaN elsewhere (0 times NaN) must not reach the sum."""
    corrupted = torch.where(torch.tensor([False, True, False, True]), V9, math.nan)
    got = R.discounted_returns(R1, corrupted, N, AT1, 1.0)
    assert got.tolist() == [11.0, 10.0, 11.0, 10.0]
