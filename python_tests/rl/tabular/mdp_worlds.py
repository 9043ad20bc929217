"""Finite MDPs for several tests."""

import itertools

import torch

from automl_ext.rl import MDP

GAMMAS = [0.0, 0.3, 0.9, 0.99]


def random_mdp(*batch, S=4, A=3, seed=0, ending=0.2):
    """Return MDPs with sparse transitions, each of which ends the episode with probability in [ending, 2 ending]."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*batch, *shape, generator=g, dtype=torch.float64)

    p = rand(S, A, S) * (rand(S, A, S) < 0.6) + 1e-3
    end = ending * (1 + rand(S, A, S))
    return MDP(p / p.sum(-1, keepdim=True), 4 * rand(S, A) - 2, end)


def part(mdp, i):
    """Return MDP ``i`` of a batch."""
    return MDP(mdp.transitions[i], mdp.rewards[i], mdp.terminated[i])


def all_policies(S, A):
    """Return all deterministic policies, [A^S, S]."""
    return torch.tensor(list(itertools.product(range(A), repeat=S)))


def close(actual, expected, atol=1e-9):
    """Assert that ``actual`` equals ``expected`` within ``atol``."""
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=atol)


def walk(n=5):
    """Return the random walk of Sutton & Barto 2018, example 6.2: n states between two ends, +1 at the right end."""
    p, r = torch.zeros(n + 2, 2, n + 2), torch.zeros(n + 2, 2)
    for s in range(1, n + 1):
        p[s, 0, s - 1] = p[s, 1, s + 1] = 1
    p[0, :, 0] = p[-1, :, -1] = 1
    r[n, 1] = 1
    terminal = torch.zeros(n + 2, dtype=torch.bool)
    terminal[[0, -1]] = True
    return MDP(p, r, terminal)
