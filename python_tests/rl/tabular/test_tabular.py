"""Solvers of finite MDPs, compared with closed forms, with all policies, and with loops over batches."""

import itertools

import pytest
import torch
from mdp_worlds import GAMMAS, all_policies, close, part, random_mdp, walk

from automl_ext.rl import MDP, policy_evaluation, policy_iteration, q_learning, value_iteration
from automl_ext.rl.tabular.solvers import bellman_optimality, greedy, q_from_v

# Closed forms


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_geometric_episode(gamma):
    # One state with reward 1; every step ends the episode with probability 1/4: v = 1 / (1 - 3/4 γ).
    mdp = MDP([[[1.0]]], [[1.0]], 0.25)
    expected = [1 / (1 - 0.75 * gamma)]
    close(policy_evaluation(mdp, torch.tensor([0]), gamma), expected)
    close(value_iteration(mdp, gamma).values, expected, 1e-8)
    close(policy_iteration(mdp, gamma).values, expected)


def test_random_walk():
    values = policy_evaluation(walk(), torch.full((7, 2), 0.5), 1.0)
    close(values[1:-1], [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_walk_to_the_right_is_optimal(gamma):
    for solution in (value_iteration(walk(), gamma), policy_iteration(walk(), gamma)):
        close(solution.values[1:-1], [gamma**k for k in (4, 3, 2, 1, 0)], 1e-8)
        assert solution.policy.tolist() == [0, 1, 1, 1, 1, 1, 0]  # both actions are tied at the ends: the lowest


def test_no_bootstrap_past_a_terminated_transition():
    # State 1 has reward 100 forever, but the transition from 0 to 1 ends the episode.
    end = torch.zeros(2, 1, 2, dtype=torch.bool)
    end[0, 0, 1] = True
    mdp = MDP([[[0, 1]], [[0, 1]]], [[3], [100]], end)
    for values in (policy_iteration(mdp, 0.9).values, value_iteration(mdp, 0.9).values):
        close(values, [3, 1000], 1e-7)
    learned = q_learning(mdp, 0.5, 1500, omega=0.55, generator=torch.Generator().manual_seed(0))
    close(learned.values, [3, 200], 1e-3)


# Bellman operators


def test_bellman_operators_equal_hand_calculation():
    mdp = MDP([[[0.5, 0.5], [1, 0]], [[0, 1], [0, 1]]], [[1, 2], [0, 4]], torch.tensor([False, True]))
    v = torch.tensor([10.0, 1e6], dtype=torch.float64)
    close(q_from_v(mdp, v, 0.5), [[1 + 0.25 * 10, 2 + 0.5 * 10], [0, 4]])
    close(bellman_optimality(mdp, v, 0.5), [7, 4])


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_bellman_optimality_is_a_contraction(gamma):
    mdp = random_mdp(50, ending=0)
    g = torch.Generator().manual_seed(2)
    u, v = torch.randn(2, 50, 4, generator=g, dtype=torch.float64)
    before, after = (u - v).abs().amax(-1), (bellman_optimality(mdp, u, gamma) - bellman_optimality(mdp, v, gamma))
    assert (after.abs().amax(-1) <= gamma * before + 1e-12).all()


def test_evaluation_has_a_gradient():
    mdp = random_mdp()
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: policy_evaluation(mdp, x.softmax(-1), 0.9), logits)


# Brute force


@pytest.mark.parametrize("gamma", [*GAMMAS, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_solutions_equal_the_best_of_all_policies(gamma, seed):
    mdp = random_mdp(seed=seed)
    policies = all_policies(4, 3)
    values = policy_evaluation(mdp, policies, gamma)
    best = values.amax(0)
    assert (values >= best - 1e-9).all(-1).any()  # one policy is optimal in every state
    tol = 1e-7
    by_values, by_policies = value_iteration(mdp, gamma, tol=tol), policy_iteration(mdp, gamma)
    close(by_values.values, best, tol)
    close(by_policies.values, best, 1e-9)
    assert by_values.policy.tolist() == by_policies.policy.tolist()
    assert by_policies.policy.tolist() == policies[(values >= best - 1e-9).all(-1)][0].tolist()


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("tol", [1.0, 1e-3, 1e-6])
def test_error_within_tol_and_not_far_below(gamma, tol):
    # Without terminations the error bound is tight, because all values change by the same amount.
    mdp = MDP([[[0.5, 0.5]], [[0.5, 0.5]]], [[1], [1]])
    error = (value_iteration(mdp, gamma, tol=tol).values - 1 / (1 - gamma)).abs().max()
    assert gamma * tol / 2 < error <= tol * (1 + 1e-6)


def test_policy_evaluation_equals_the_sum_of_discounted_rewards():
    # Σ_t γ^t r_t, with the state distribution of every step; no linear solve.
    mdp, policy, gamma = random_mdp(seed=5), torch.tensor([2, 0, 1, 1]), 0.9
    P, r = mdp.continuing[torch.arange(4), policy], mdp.rewards[torch.arange(4), policy]
    total, reach = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for t in range(400):
        total += gamma**t * reach @ r
        reach = reach @ P
    close(policy_evaluation(mdp, policy, gamma), total)


# Ties


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999999])
def test_ties_go_to_the_lowest_action(gamma):
    # Every action three times, with different rounding: rounding must neither decide nor cause a cycle.
    base = random_mdp(20, S=6, ending=0)
    twice = MDP(base.transitions.repeat(1, 1, 3, 1), base.rewards.repeat(1, 1, 3))
    solution = policy_iteration(twice, gamma)
    assert solution.policy.max() < 3
    assert solution.policy.equal(policy_iteration(base, gamma).policy)
    assert solution.iterations < 20
    if gamma < 0.99:
        assert value_iteration(twice, gamma).policy.equal(solution.policy)


def test_all_policies_tied():
    # All policies have the same values, but every q-value is rounded differently.
    g = torch.Generator().manual_seed(0)
    p = torch.rand(30, 8, 5, 8, generator=g, dtype=torch.float64)
    mdp = MDP(p / p.sum(-1, keepdim=True), torch.full((30, 8, 5), 0.1))
    for gamma in (0.9, 0.9999):
        assert policy_iteration(mdp, gamma).policy.eq(0).all()
    assert value_iteration(mdp, 0.9).policy.eq(0).all()


def test_greedy():
    q = torch.tensor([[1.0, 3.0, 3.0], [2.0, 1.99, 2.0]])
    assert greedy(q).tolist() == [1, 0]
    assert greedy(q, 2.0).tolist() == [0, 0]


# Batches


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_batch_equals_loop(gamma):
    mdp = random_mdp(2, 3, S=5, seed=3)
    policy = torch.randint(3, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    values = policy_evaluation(mdp, policy, gamma)
    by_values, by_policies = value_iteration(mdp, gamma, tol=1e-9), policy_iteration(mdp, gamma)
    assert mdp.batch == (2, 3)
    for i in itertools.product(range(2), range(3)):
        one = part(mdp, i)
        close(values[i], policy_evaluation(one, policy[i], gamma))
        close(by_values.values[i], value_iteration(one, gamma, tol=1e-9).values, 2e-9)
        close(by_policies.q_values[i], policy_iteration(one, gamma).q_values)
        assert (
            by_values.policy[i].tolist()
            == by_policies.policy[i].tolist()
            == policy_iteration(one, gamma).policy.tolist()
        )


def test_empty_batch():
    mdp = MDP(torch.zeros(0, 2, 3, 2), torch.zeros(0, 2, 3))
    assert value_iteration(mdp, 0.9).values.shape == (0, 2)
    assert policy_iteration(mdp, 1.0).policy.shape == (0, 2)
    assert q_learning(mdp, 0.9, 2).q_values.shape == (0, 2, 3)
