"""Input checks of finite MDPs and their solvers."""

import math
import types
from typing import Any

import numpy as np
import pytest
import torch
from mdp_worlds import close, random_mdp, walk

from automl_ext.rl import MDP, policy_evaluation, policy_iteration, q_learning, value_iteration

# γ = 1


def test_gamma_one_with_endless_episodes_names_a_state():
    mdp = walk()  # right from 1 and left from 2, forever
    for solve in (value_iteration, policy_iteration, lambda m, g: q_learning(m, g, 1)):
        with pytest.raises(ValueError, match=r"gamma: 1 requires episodes that end with certainty, but from state 1 "):
            solve(mdp, 1.0)
    batch = MDP(torch.stack([mdp.transitions] * 2), torch.stack([mdp.rewards] * 2), torch.ones(2, 1, 1, 1) * 0.1)
    assert policy_iteration(batch, 1.0).values.shape == (2, 7)
    ends_in_first = torch.tensor([0.1, 0.0])[:, None, None, None]
    with pytest.raises(ValueError, match=r"state 0 of MDP \[1\]"):
        policy_iteration(MDP(batch.transitions, batch.rewards, ends_in_first), 1.0)
    back_and_forth = torch.tensor([0, 1, 0, 1, 1, 1, 0])
    ends = MDP(mdp.transitions, mdp.rewards, torch.tensor([True, False, False, False, False, False, True]))
    with pytest.raises(ValueError, match="from state 1 an episode can last forever"):
        policy_evaluation(ends, back_and_forth, 1.0)
    close(policy_evaluation(ends, torch.tensor([0, 0, 0, 1, 1, 1, 0]), 1.0)[1:-1], [0, 0, 1, 1, 1])


def test_precision_beyond_float64_is_refused():
    mdp = random_mdp(ending=0)
    with pytest.raises(ValueError, match="too close to 1 for float64"):
        policy_iteration(mdp, math.nextafter(1, 0))
    with pytest.raises(ValueError, match="episodes end too rarely"):
        policy_evaluation(MDP([[[1.0]]], [[1.0]], 1e-11 / 5), torch.tensor([0]), 1.0)
    with pytest.raises(ValueError, match=r"value_iteration: tol: expected at least .*, got 1e-16"):
        value_iteration(MDP(mdp.transitions, mdp.rewards + 1000), 0.99, tol=1e-16)
    with pytest.raises(RuntimeError, match=r"max_sweeps: the error bound is .* after 10 sweeps, expected 1e-08"):
        value_iteration(mdp, 0.999, max_sweeps=10)


# Bad input

HALVES = [[[0.5, 0.5]], [[0.0, 1.0]]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0.5, 0.5]], [[1.0]]), ValueError, r"transitions: expected shape \[..., S, A, S\], got \[1, 2\]"),
        ((torch.ones(2, 1, 3) / 3, torch.ones(2, 1)), ValueError, r"transitions: .* got \[2, 1, 3\]"),
        ((torch.ones(0, 1, 0), torch.ones(0, 1)), ValueError, r"transitions: .* got \[0, 1, 0\]"),
        (
            ([[[0.5, 0.4]], [[0.0, 1.0]]], [[1], [1]]),
            ValueError,
            r"transitions: expected rows that sum .* 0.9 at \[0, 0\]",
        ),
        (([[[1.5, -0.5]], [[0.0, 1.0]]], [[1], [1]]), ValueError, r"transitions: expected prob.* 1.5 at \[0, 0, 0\]"),
        (([[[0.5, 0.5]], [[0.0, math.nan]]], [[1], [1]]), ValueError, r"transitions: .* nan at \[1, 0, 1\]"),
        (("abc", [[1], [1]]), TypeError, "transitions: expected an array of numbers, got str"),
        ((torch.ones(1, 1, 1, dtype=torch.complex64), [[1]]), TypeError, "transitions: expected real numbers"),
        ((HALVES, [1, 1]), ValueError, r"rewards: expected shape \[..., S, A\] = \[2, 1\], got \[2\]"),
        ((HALVES, [[1], [math.inf]]), ValueError, r"rewards: expected finite numbers, got inf at \[1, 0\]"),
        (
            (HALVES, [[1], [1]], [True] * 3),
            ValueError,
            r"terminated: expected a shape that broadcasts to \[2, 1, 2\], .* got \[3\]",
        ),
        ((HALVES, [[1], [1]], [0.0, 2.0]), ValueError, r"terminated: expected probabilities, got 2.0 at \[1\]"),
    ],
)
def test_invalid_mdps_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        MDP(*arguments)


def test_numpy_arrays_of_both_precisions():
    expected = policy_iteration(MDP(HALVES, [[1], [2]]), 0.9).values
    for kind in (np.float32, np.float64):
        close(policy_iteration(MDP(np.array(HALVES, kind), np.array([[1], [2]])), 0.9).values, expected)
    third = torch.ones(3, 1, 3) / 3  # float32 rows, normalized to sum to one
    assert (MDP(third, torch.ones(3, 1)).transitions.sum(-1) - 1).abs().max() < 1e-15


@pytest.mark.parametrize("policy", [np.array([0, 0]), np.ones((2, 1)), np.ones((2, 1), np.float32)])
def test_policies_may_be_arrays(policy):
    mdp = MDP(HALVES, [[1], [1]])
    close(policy_evaluation(mdp, policy, 0.9), policy_evaluation(mdp, torch.from_numpy(policy), 0.9))


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        ([0, 0], TypeError, "policy: expected an int64 or float tensor, got list"),
        (torch.zeros(2, dtype=torch.bool), TypeError, "policy: expected an int64 or float tensor"),
        (torch.tensor([0, 3]), ValueError, r"policy: expected actions in \[0, 0\], got 3"),
        (torch.tensor([0, 0, 0]), ValueError, r"policy: expected shape \[..., 2\], got \[3\]"),
        (torch.tensor(0), ValueError, r"policy: expected shape \[..., 2\], got \[\]"),
        (torch.ones(2), ValueError, r"policy: expected shape \[..., 2, 1\], got \[2\]"),
        (torch.ones(2, 1) / 2, ValueError, r"policy: expected rows that sum to one, got 0.5 at \[0\]"),
        (torch.full((2, 1), math.nan), ValueError, "policy: expected probabilities, got nan"),
    ],
)
def test_invalid_policies_are_refused(policy, error, message):
    with pytest.raises(error, match="policy_evaluation: " + message):
        policy_evaluation(MDP(HALVES, [[1], [1]]), policy, 0.9)


def test_policies_of_another_batch_size_are_refused():
    with pytest.raises(ValueError, match=r"policy: expected shape \[..., 4\], leading dim.* \[5\], got \[3, 4\]"):
        policy_evaluation(random_mdp(5), torch.zeros(3, 4, dtype=torch.int64), 0.9)


def test_numbers_out_of_range_are_refused():
    mdp = random_mdp()
    for solve in (value_iteration, policy_iteration, lambda m, g: policy_evaluation(m, torch.tensor([0] * 4), g)):
        for gamma in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match=r"gamma: expected a number in \[0, 1\]"):
                solve(mdp, gamma)
        with pytest.raises(TypeError, match="gamma: expected a float"):
            solve(mdp, "0.9")
    with pytest.raises(ValueError, match="value_iteration: tol"):
        value_iteration(mdp, 0.9, tol=-1.0)
    with pytest.raises(ValueError, match="value_iteration: max_sweeps"):
        value_iteration(mdp, 0.9, max_sweeps=0)
    for name, value in {"walkers": 0, "epsilon": 0.0, "restart": 0.0, "omega": 0.5}.items():
        with pytest.raises(ValueError, match=f"q_learning: {name}"):
            q_learning(mdp, 0.9, 10, **{name: value})
    with pytest.raises(ValueError, match="q_learning: steps"):
        q_learning(mdp, 0.9, 0)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({1: {0: [(1.0, 1, 0.0, True)]}}, r"expected a table P of the states 0 to 0, got \[1\]"),
        ({0: {0: [(1.0, 7, 0.0, True)]}}, "expected next states below 1, got 7 after state 0"),
        ({0: {0: [(1.0, -1, 0.0, True)]}}, "expected next states below 1, got -1 after state 0"),
    ],
)
def test_tables_with_other_states_are_refused(table: dict[int, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MDP.from_gymnasium(types.SimpleNamespace(unwrapped=types.SimpleNamespace(P=table)))


def test_the_open_end_of_a_range_is_named() -> None:
    mdp = MDP(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"omega: expected a number in \(0.5, 1\], got 0.5"):
        q_learning(mdp, 0.9, steps=1, omega=0.5)
