"""Solvers of finite MDPs: policy evaluation, value iteration, policy iteration, Q-learning (Sutton & Barto 2018, 3–6).

    q(s, a) = r(s, a) + γ Σ_s' P(s', the episode continues | s, a) v(s')
    T_π v   = Σ_a π(a | s) q(s, a)                              v_π is its fixed point
    T v     = max_a q(s, a)                                     v* is its fixed point

All solvers work on batches of MDPs, in float64. Rounding errors are about 1e-16 N max|v|. Here N, the horizon, is the
largest expected discounted number of steps, Σ_t γ^t; it is 1 / (1 − γ) if episodes never end. T is a contraction with
factor 1 − 1/N.

γ = 1 requires episodes that end with certainty: under the evaluated policy in policy evaluation, and under every policy
in the other solvers. Otherwise v* need not be the only fixed point, and episodes of its greedy policy need not end. The
solvers then raise ValueError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from automl_ext.ops._checks import check_count, check_number
from automl_ext.ops.targets import td_targets
from automl_ext.rl.tabular.mdp import MDP, check_ends, policy_probabilities

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of a solver.

    Attributes:
        values: state values, [..., S].
        q_values: action values, [..., S, A].
        policy: greedy actions for ``q_values``, int64 [..., S]; the lowest of tied actions.
        iterations: number of sweeps, of evaluated policies, or of steps, for the whole batch.
    """

    values: Tensor
    q_values: Tensor
    policy: Tensor
    iterations: int


def q_from_v(mdp: MDP, values: Tensor, gamma: float) -> Tensor:
    """Compute q(s, a), [..., S, A], from the values of the next states, [..., S]."""
    next_values = mdp.continuing.flatten(-3, -2) @ values.unsqueeze(-1)  # all (s, a) in one product
    return mdp.rewards + gamma * next_values.squeeze(-1).unflatten(-1, mdp.rewards.shape[-2:])


def bellman_optimality(mdp: MDP, values: Tensor, gamma: float) -> Tensor:
    """Apply the Bellman optimality operator, T v, [..., S]."""
    return q_from_v(mdp, values, gamma).amax(-1)


def greedy(q_values: Tensor, slack: Tensor | float = 0.0) -> Tensor:
    """Return the lowest action whose value is within ``slack`` (a number or [...]) of the largest, int64 [..., S]."""
    slack = torch.as_tensor(slack, device=q_values.device)[..., None, None]
    return (q_values >= q_values.amax(-1, keepdim=True) - slack).int().argmax(-1)


def policy_evaluation(mdp: MDP, policy: Tensor, gamma: float) -> Tensor:
    """Compute v_π by solving (I − γ P_π) v = r_π. Differentiable with respect to the policy's probabilities.

    The direct solution is exact up to rounding for every γ and has no tolerance.

    Args:
        mdp: an MDP, or a batch.
        policy: actions, int64 [..., S], or probabilities, float [..., S, A]. Leading dimensions broadcast with those of
            the MDP: one call evaluates many policies of one MDP.
        gamma: discount factor in [0, 1]. 1 requires episodes that end with certainty under the policy.

    Returns:
        [..., S].

    Raises:
        TypeError, ValueError: not a policy of this MDP; ``gamma`` out of range, or too close to 1 for float64.
    """
    op = "policy_evaluation"
    gamma = check_number(gamma, "gamma", op, 0, 1)
    values, _ = _evaluate(mdp, policy_probabilities(mdp, policy, op), gamma, op)
    return values


@torch.no_grad()
def value_iteration(mdp: MDP, gamma: float, *, tol: float = 1e-8, max_sweeps: int = 1_000_000) -> Solution:
    """Iterate v ← T v from 0 until |v − v*| ≤ ``tol`` in every state.

    The iteration stops when (N − 1) max|T v − v| ≤ tol, with N − 1 = γ / (1 − γ) for γ < 1 (Puterman 1994, 6.3).
    Actions whose q-values differ by at most 2 γ tol count as tied, and the policy takes the lowest of them. The values
    of this policy are within 4 γ tol N of v*.

    Args:
        mdp: an MDP, or a batch.
        gamma: discount factor in [0, 1]. 1 requires episodes that end with certainty under every policy.
        tol: largest error of the values, in the unit of the rewards.
        max_sweeps: largest number of iterations.

    Raises:
        ValueError: numbers out of range; ``tol`` below the resolution of float64; γ = 1 and episodes that may not end.
        RuntimeError: no convergence within ``max_sweeps``.
    """
    op = "value_iteration"
    gamma, tol = check_number(gamma, "gamma", op, 0, 1), check_number(tol, "tol", op, 0, math.inf)
    horizon = _longest_horizon(mdp, gamma, op)
    values = torch.zeros_like(mdp.rewards[..., 0])
    for sweep in range(1, check_count(max_sweeps, "max_sweeps", op) + 1):
        previous, values = values, bellman_optimality(mdp, values, gamma)
        change, size = (values - previous).abs().amax(-1), values.abs().amax(-1)
        error = (horizon - 1) * change
        unmet = error > tol
        if not unmet.any():
            q = q_from_v(mdp, values, gamma)
            return Solution(values, q, greedy(q, 2 * gamma * tol), sweep)
        if (unmet & (change <= 4 * _EPS * size)).any():  # the remaining changes are rounding and need not vanish
            raise ValueError(f"{op}: tol: expected at least {(10 * _EPS * horizon * size).max():.1g}, got {tol:g}")
    raise RuntimeError(
        f"{op}: max_sweeps: the error bound is {error.max():.2g} after {max_sweeps} sweeps, expected {tol:g}; "
        "policy_iteration needs few iterations for any gamma"
    )


@torch.no_grad()
def policy_iteration(mdp: MDP, gamma: float) -> Solution:
    """Evaluate and improve a policy until no action is better (Howard 1960). The values are exact up to rounding.

    An action is replaced only by one that is better by more than rounding, so that ties cannot cause a cycle.

    Args:
        mdp: an MDP, or a batch.
        gamma: discount factor in [0, 1]. 1 requires episodes that end with certainty under every policy.

    Raises:
        ValueError: ``gamma`` out of range, or too close to 1 for float64; γ = 1 and episodes that may not end.
    """
    op = "policy_iteration"
    gamma = check_number(gamma, "gamma", op, 0, 1)
    check_ends(mdp.continuing, gamma, op)
    return _iterate_policies(mdp, gamma, op)


@torch.no_grad()
def q_learning(
    mdp: MDP,
    gamma: float,
    steps: int,
    *,
    walkers: int = 16,
    epsilon: float = 0.5,
    restart: float = 0.1,
    omega: float = 0.8,
    generator: torch.Generator | None = None,
) -> Solution:
    """Learn q* from sampled transitions by Q-learning (Watkins 1989): q(s, a) ← q(s, a) + α (target − q(s, a)).

    The n-th update of a pair has α = n^−omega. (With α = 1/n the time to converge is exponential in 1 / (1 − γ):
    Even-Dar & Mansour 2003.) ``epsilon`` and ``restart`` ensure that every pair is visited infinitely often. q then
    converges to q* with probability one (Watkins & Dayan 1992; Tsitsiklis 1994 for γ = 1).

    Args:
        mdp: an MDP, or a batch.
        gamma: discount factor in [0, 1]. 1 requires episodes that end with certainty under every policy.
        steps: number of steps of each walker.
        walkers: number of ε-greedy walkers in each MDP, which share a table. If several walkers take the same action
            in the same state, the mean of their targets makes one update.
        epsilon: probability of a uniformly random action, in (0, 1].
        restart: probability per step, in (0, 1], that a walker moves to a uniformly random state, as it does at the
            end of an episode. A restart is a truncation: its target bootstraps.
        omega: exponent of the learning rate, in (0.5, 1].
        generator: random generator on the CPU. Equal seeds give equal tables.

    Raises:
        TypeError, ValueError: numbers out of range; γ = 1 and episodes that may not end.
    """
    op = "q_learning"
    gamma = check_number(gamma, "gamma", op, 0, 1)
    steps, W = check_count(steps, "steps", op), check_count(walkers, "walkers", op)
    epsilon, restart = check_number(epsilon, "epsilon", op, 1e-9, 1), check_number(restart, "restart", op, 1e-9, 1)
    omega = check_number(omega, "omega", op, 0.5, 1, above=True)
    check_ends(mdp.continuing, gamma, op)
    S, A, device = mdp.n_states, mdp.n_actions, mdp.rewards.device
    assert mdp.terminated is not None
    # All tables of the batch form one table with a row for each (MDP, state) and A columns.
    n_mdps = math.prod(mdp.batch)
    rewards, ends = mdp.rewards.reshape(n_mdps * S, A), mdp.terminated.reshape(n_mdps * S, A, S)
    cumulative = mdp.transitions.cumsum(-1).reshape(n_mdps * S, A, S)
    first_row = S * torch.arange(n_mdps, device=device).repeat_interleave(W)

    def uniform() -> Tensor:
        return torch.rand(len(first_row), generator=generator, dtype=torch.float64).to(device)

    q, visits = torch.zeros_like(rewards), torch.zeros_like(rewards)
    rows = first_row + (S * uniform()).long()
    for _ in range(steps):
        actions = torch.where(uniform() < epsilon, (A * uniform()).long(), q[rows].argmax(-1))
        row = cumulative[rows, actions]
        # right=True and scaling by the last cumulative sum exclude states with probability 0.
        next_states = torch.searchsorted(row, uniform()[:, None] * row[:, -1:], right=True).squeeze(-1)
        ended = uniform() < ends[rows, actions, next_states]
        target = td_targets(rewards[rows, actions], q[first_row + next_states], ended, gamma)

        cell = rows * A + actions
        count = torch.bincount(cell, minlength=q.numel()).double()
        total = torch.bincount(cell, target - q.flatten()[cell], minlength=q.numel())
        visits += (count > 0).view_as(q)
        q += visits.clamp(min=1) ** -omega * (total / count.clamp(min=1)).view_as(q)

        restarted = ended | (uniform() < restart)
        rows = first_row + torch.where(restarted, (S * uniform()).long(), next_states)
    q = q.view_as(mdp.rewards)
    return Solution(q.amax(-1), q, greedy(q), steps)


def _iterate_policies(mdp: MDP, gamma: float, op: str) -> Solution:
    """Run policy iteration; the caller has checked that episodes end if γ = 1."""
    policy = greedy(mdp.rewards)
    for iteration in range(1, 10_000):
        values, horizon = _evaluate(mdp, policy_probabilities(mdp, policy, op), gamma, op)
        q = q_from_v(mdp, values, gamma)
        slack = 8 * _EPS * horizon * values.abs().amax(-1)
        chosen = q.gather(-1, policy.unsqueeze(-1)).squeeze(-1)
        better = q.amax(-1) > chosen + slack.unsqueeze(-1)
        if not better.any():
            return Solution(values, q, greedy(q, slack), iteration)
        policy = torch.where(better, greedy(q, slack), policy)
    raise RuntimeError(f"{op}: no convergence after {iteration} policies")  # known MDPs need fewer than 100


def _evaluate(mdp: MDP, probabilities: Tensor, gamma: float, op: str) -> tuple[Tensor, Tensor]:
    """Compute v_π, [..., S], and the horizon of π, [...].

    The horizon is the largest entry of (I − γ P_π)⁻¹ 1. The inverse has no negative entries, so this is its maximum
    norm, which bounds the growth of rounding errors.
    """
    P = (probabilities.unsqueeze(-1) * mdp.continuing).sum(-2)
    r = (probabilities * mdp.rewards).sum(-1)
    check_ends(P.unsqueeze(-2), gamma, op)
    eye = torch.eye(mdp.n_states, dtype=P.dtype, device=P.device)
    solved, info = torch.linalg.solve_ex(eye - gamma * P, torch.stack([r, torch.ones_like(r)], -1))
    horizon = solved[..., 1].detach().abs().amax(-1)
    if info.any() or not (horizon * _EPS < 1e-4).all():
        raise ValueError(f"{op}: gamma: {gamma!r} is too close to 1 for float64, or episodes end too rarely")
    return solved[..., 0], horizon


def _longest_horizon(mdp: MDP, gamma: float, op: str) -> Tensor:
    """Return an upper bound on the expected discounted number of steps, Σ γᵗ, [...], over all policies and states.

    For γ = 1 the bound is exact: it is the maximum.
    """
    if gamma < 1:
        return torch.full(mdp.batch, 1 / (1 - gamma), dtype=torch.float64, device=mdp.rewards.device)
    check_ends(mdp.continuing, gamma, op)
    unit_rewards = MDP(mdp.transitions, torch.ones_like(mdp.rewards), mdp.terminated)
    return _iterate_policies(unit_rewards, gamma, op).values.amax(-1)
