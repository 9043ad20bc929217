"""Finite MDPs solved: policy evaluation, value iteration, policy iteration, Q-learning (Sutton & Barto 2018, 3 to 6).

    q(s, a) = r(s, a) + γ Σ_s' P(s', the episode goes on | s, a) v(s')
    T_π v   = Σ_a π(a | s) q(s, a)                              v_π is its fixed point
    T v     = max_a q(s, a)                                     v* is its fixed point

All work on batches of MDPs, in float64. Rounding leaves errors of about 1e-16 N max|v|, where N, the horizon, is the
largest expected number of steps, each counted γ^t: 1 / (1 − γ) where no episode ends. T contracts by 1 − 1/N.

γ = 1 is there for episodes that are sure to end: under the policy to be evaluated; under every policy, where the best
one is looked for (otherwise v* need not be the only fixed point, nor its greedy policy one that ever ends). Anything
else is an error, not a number.
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
    """What a solver found.

    Attributes:
        values: [..., S], of the states.
        q_values: [..., S, A].
        policy: int64 [..., S], greedy for ``q_values``; of tied actions the lowest.
        iterations: sweeps, policies evaluated, or steps taken, by the whole batch.
    """

    values: Tensor
    q_values: Tensor
    policy: Tensor
    iterations: int


def q_from_v(mdp: MDP, values: Tensor, gamma: float) -> Tensor:
    """q(s, a), [..., S, A], of one more step ahead of ``values``, [..., S]."""
    following = mdp.continuing.flatten(-3, -2) @ values.unsqueeze(-1)  # all (s, a) in one product
    return mdp.rewards + gamma * following.squeeze(-1).unflatten(-1, mdp.rewards.shape[-2:])


def bellman_expectation(mdp: MDP, policy: Tensor, values: Tensor, gamma: float) -> Tensor:
    """T_π v, [..., S]. ``policy`` as in :func:`policy_evaluation`."""
    return (policy_probabilities(mdp, policy, "bellman_expectation") * q_from_v(mdp, values, gamma)).sum(-1)


def bellman_optimality(mdp: MDP, values: Tensor, gamma: float) -> Tensor:
    """T v, [..., S]."""
    return q_from_v(mdp, values, gamma).amax(-1)


def greedy(q_values: Tensor, slack: Tensor | float = 0.0) -> Tensor:
    """The lowest action within ``slack`` (a number or [...]) of the best, int64 [..., S]."""
    slack = torch.as_tensor(slack, device=q_values.device)[..., None, None]
    return (q_values >= q_values.amax(-1, keepdim=True) - slack).int().argmax(-1)


def policy_evaluation(mdp: MDP, policy: Tensor, gamma: float) -> Tensor:
    """v_π, [..., S], from (I − γ P_π) v = r_π, with gradients to the policy's probabilities.

    Solved and not iterated: exact for every γ, no tolerance to choose, and S³ is little beside the S²A of the arrays
    for the sizes that fit in memory. (To iterate, apply :func:`bellman_expectation`.)

    Args:
        policy: int64 [..., S], the actions, or float [..., S, A], their probabilities. Its leading dims broadcast with
            the MDP's: many policies of one MDP are one call.
        gamma: in [0, 1]; 1 where episodes are sure to end under the policy.

    Raises:
        TypeError, ValueError: no such policy; ``gamma`` out of range, or too near 1 for float64.
    """
    op = "policy_evaluation"
    gamma = check_number(gamma, "gamma", op, 0, 1)
    values, _ = _evaluate(mdp, policy_probabilities(mdp, policy, op), gamma, op)
    return values


@torch.no_grad()
def value_iteration(mdp: MDP, gamma: float, *, tol: float = 1e-8, max_sweeps: int = 1_000_000) -> Solution:
    """v ← T v from 0 until |v − v*| ≤ ``tol`` in every state.

    Stops when (N − 1) max|T v − v| ≤ tol, with N − 1 = γ / (1 − γ) for γ < 1 (Puterman 1994, 6.3). As actions whose q
    differ by 2 γ tol cannot be told apart, the policy takes the lowest of them; its values are within 4 γ tol N of v*.

    Args:
        gamma: in [0, 1]; 1 where episodes are sure to end under every policy.
        tol: largest error of the values, in the rewards' unit.

    Raises:
        ValueError: numbers out of range; ``tol`` below what float64 resolves; γ = 1 and episodes without an end.
        RuntimeError: ``max_sweeps`` did not do.
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
        if (unmet & (change <= 4 * _EPS * size)).any():  # only rounding is left, and may be for ever
            raise ValueError(f"{op}: tol: expected at least {(10 * _EPS * horizon * size).max():.1g}, got {tol:g}")
    raise RuntimeError(
        f"{op}: max_sweeps: the error may be {error.max():.2g} after {max_sweeps} sweeps, expected {tol:g}; "
        "policy_iteration needs few iterations for any gamma"
    )


@torch.no_grad()
def policy_iteration(mdp: MDP, gamma: float) -> Solution:
    """Evaluate, improve, until no action is better (Howard 1960); the values are exact.

    An action gives way only to one that is better by more than rounding, so ties do not go round in circles.

    Args:
        gamma: in [0, 1]; 1 where episodes are sure to end under every policy.

    Raises:
        ValueError: ``gamma`` out of range or too near 1 for float64; γ = 1 and episodes without an end.
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
    """Watkins' Q-learning on sampled transitions: q(s, a) ← q(s, a) + α (target − q(s, a)).

    α = n(s, a)^−omega for the n-th update (Even-Dar & Mansour 2003: 1/n takes time exponential in 1 / (1 − γ)). With
    it and with every pair visited for ever, which ``epsilon`` and ``restart`` see to, q converges to q* with
    probability one (Watkins & Dayan 1992; Tsitsiklis 1994 for γ = 1).

    Args:
        gamma: in [0, 1]; 1 where episodes are sure to end under every policy.
        steps: of each walker.
        walkers: in each MDP, ε-greedy and sharing a table; where several take one action in one state, the mean of
            their targets is one update.
        epsilon: probability of an action drawn uniformly, in (0, 1].
        restart: probability per step, in (0, 1], that a walker is taken to a state drawn uniformly, as it is where an
            episode ends. That is a truncation: the target still bootstraps.
        omega: in (0.5, 1].
        generator: of the CPU. Equal seeds give equal tables.

    Raises:
        TypeError, ValueError: numbers out of range; γ = 1 and episodes without an end.
    """
    op = "q_learning"
    gamma = check_number(gamma, "gamma", op, 0, 1)
    steps, W = check_count(steps, "steps", op), check_count(walkers, "walkers", op)
    epsilon, restart = check_number(epsilon, "epsilon", op, 1e-9, 1), check_number(restart, "restart", op, 1e-9, 1)
    omega = check_number(omega, "omega", op, math.nextafter(0.5, 1), 1)
    check_ends(mdp.continuing, gamma, op)
    S, A, device = mdp.n_states, mdp.n_actions, mdp.rewards.device
    assert mdp.terminated is not None
    # The batch's tables are one table of all their (MDP, state) rows and A actions.
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
        # To the right of the draw, below the last sum: never a state of probability 0.
        following = torch.searchsorted(row, uniform()[:, None] * row[:, -1:], right=True).squeeze(-1)
        ended = uniform() < ends[rows, actions, following]
        target = td_targets(rewards[rows, actions], q[first_row + following], ended, gamma)

        cell = rows * A + actions
        count = torch.bincount(cell, minlength=q.numel()).double()
        total = torch.bincount(cell, target - q.flatten()[cell], minlength=q.numel())
        visits += (count > 0).view_as(q)
        q += visits.clamp(min=1) ** -omega * (total / count.clamp(min=1)).view_as(q)

        again = ended | (uniform() < restart)
        rows = first_row + torch.where(again, (S * uniform()).long(), following)
    q = q.view_as(mdp.rewards)
    return Solution(q.amax(-1), q, greedy(q), steps)


def _iterate_policies(mdp: MDP, gamma: float, op: str) -> Solution:
    """Policy iteration of what is sure to end where γ = 1."""
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
    raise RuntimeError(f"{op}: no end after {iteration} policies")  # none is known that needs a hundred


def _evaluate(mdp: MDP, probabilities: Tensor, gamma: float, op: str) -> tuple[Tensor, Tensor]:
    """v_π, [..., S], and π's horizon, [...].

    The horizon, the largest entry of (I − γ P_π)⁻¹ 1, is this inverse's maximum norm, for it has no negative entry: it
    says how far rounding errors grow.
    """
    P = (probabilities.unsqueeze(-1) * mdp.continuing).sum(-2)
    r = (probabilities * mdp.rewards).sum(-1)
    check_ends(P.unsqueeze(-2), gamma, op)
    eye = torch.eye(mdp.n_states, dtype=P.dtype, device=P.device)
    solved, info = torch.linalg.solve_ex(eye - gamma * P, torch.stack([r, torch.ones_like(r)], -1))
    horizon = solved[..., 1].detach().abs().amax(-1)
    if info.any() or not (horizon * _EPS < 1e-4).all():
        raise ValueError(f"{op}: gamma: {gamma!r} is too near 1 for float64, or episodes end too rarely")
    return solved[..., 0], horizon


def _longest_horizon(mdp: MDP, gamma: float, op: str) -> Tensor:
    """The largest horizon of any policy, [...]; for γ < 1 that of episodes that never end."""
    if gamma < 1:
        return torch.full(mdp.batch, 1 / (1 - gamma), dtype=torch.float64, device=mdp.rewards.device)
    check_ends(mdp.continuing, gamma, op)
    counting = MDP(mdp.transitions, torch.ones_like(mdp.rewards), mdp.terminated)
    return _iterate_policies(counting, gamma, op).values.amax(-1)
