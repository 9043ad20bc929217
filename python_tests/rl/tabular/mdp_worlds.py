"""Finite MDPs that several tests use."""

import itertools

import torch

from automl_ext.rl import MDP

GAMMAS = [0.0, 0.3, 0.9, 0.99]


def random_mdp(*batch, S=4, A=3, seed=0, ending=0.2):
    """Sparse transitions; each ends the episode with a probability from ``ending`` to twice that."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*batch, *shape, generator=g, dtype=torch.float64)

    p = rand(S, A, S) * (rand(S, A, S) < 0.6) + 1e-3
    end = ending * (1 + rand(S, A, S))
    return MDP(p / p.sum(-1, keepdim=True), 4 * rand(S, A) - 2, end)


def part(mdp, i):
    return MDP(mdp.transitions[i], mdp.rewards[i], mdp.terminated[i])


def all_policies(S, A):
    return torch.tensor(list(itertools.product(range(A), repeat=S)))


def close(got, want, atol=1e-9):
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), rtol=0, atol=atol)


def walk(n=5):
    """Sutton & Barto 2018, example 6.2: left or right from n states between two ends; +1 for the right one."""
    p, r = torch.zeros(n + 2, 2, n + 2), torch.zeros(n + 2, 2)
    for s in range(1, n + 1):
        p[s, 0, s - 1] = p[s, 1, s + 1] = 1
    p[0, :, 0] = p[-1, :, -1] = 1
    r[n, 1] = 1
    terminal = torch.zeros(n + 2, dtype=torch.bool)
    terminal[[0, -1]] = True
    return MDP(p, r, terminal)
