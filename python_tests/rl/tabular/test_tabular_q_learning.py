"""Tabular Q-learning: rate of convergence, reproducibility and exploration."""

import pytest
import torch
from mdp_worlds import close, random_mdp

from automl_ext.rl import MDP, policy_iteration, q_learning


@pytest.mark.parametrize("gamma", [0.8, 1.0])
def test_error_decreases_at_the_expected_rate(gamma):
    # Averaging noise of constant variance with α = n^-ω gives an error proportional to n^(-ω/2).
    mdp, copies = random_mdp(seed=7), 50
    many = MDP(*(x.expand(copies, *x.shape) for x in (mdp.transitions, mdp.rewards, mdp.terminated)))
    expected = policy_iteration(mdp, gamma).q_values

    def errors(steps):
        g = torch.Generator().manual_seed(0)
        return q_learning(many, gamma, steps, walkers=8, omega=0.8, generator=g).q_values - expected

    early, late = errors(200), errors(1000)
    assert late.mean(0).abs().max() < 0.03 * expected.abs().max()  # no remaining bias
    assert late.pow(2).mean().sqrt() < 1.3 * 5**-0.4 * early.pow(2).mean().sqrt()


def test_gamma_zero_learns_the_rewards():
    mdp = random_mdp(3, seed=7)
    assert q_learning(mdp, 0.0, 500, generator=torch.Generator().manual_seed(0)).q_values.equal(mdp.rewards)


def test_results_are_reproducible_and_mdps_are_independent():
    mdp = random_mdp(3, seed=8)
    first, second = (q_learning(mdp, 0.9, 50, generator=torch.Generator().manual_seed(4)).q_values for _ in range(2))
    assert first.equal(second)
    # Changing the rewards of the middle MDP does not change the results of the others.
    changed = MDP(mdp.transitions, mdp.rewards * torch.tensor([1.0, 5.0, 1.0])[:, None, None], mdp.terminated)
    other = q_learning(changed, 0.9, 50, epsilon=1.0, generator=torch.Generator().manual_seed(4)).q_values
    same = q_learning(mdp, 0.9, 50, epsilon=1.0, generator=torch.Generator().manual_seed(4)).q_values
    assert other[[0, 2]].equal(same[[0, 2]])
    assert not other[1].equal(same[1])


def test_restarts_leave_absorbing_states():
    # State 1 is absorbing: without restarts, walkers would rarely visit state 0 again.
    mdp = MDP([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[0.0, 1.0], [0.5, 0.0]])
    learned = q_learning(mdp, 0.5, 2000, walkers=1, generator=torch.Generator().manual_seed(0))
    close(learned.q_values, policy_iteration(mdp, 0.5).q_values, 0.02)
