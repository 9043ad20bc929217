"""Finite Markov decision processes (MDPs) as arrays. :mod:`automl_ext.rl.tabular.solvers` solves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.ops._checks import describe

_ROW_SUM_SLACK = 1e-6  # rounding of float32 probabilities


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP with S states and A actions, or a batch of MDPs in leading dimensions. All tensors are float64.

    Termination is a property of a transition, not of a state: in Gymnasium's Taxi the drop-off ends the episode in a
    state that other transitions reach without ending it. Truncation (a time limit) is not part of an MDP.

    Attributes:
        transitions: P(s' | s, a), [..., S, A, S]. Rows must sum to one within 1e-6; they are divided by their sums.
        rewards: E[r | s, a], [..., S, A]. If rewards depend on s', pass ``(transitions * rewards).sum(-1)``.
        terminated: P(the episode ends | s, a, s'), broadcastable to ``transitions``; None: episodes never end. A bool
            [S] of terminal states is one such tensor (for a batch: [..., 1, 1, S]).

    Raises:
        TypeError: not an array of real numbers.
        ValueError: mismatched shapes, no states or actions, invalid probabilities, rewards that are not finite.
    """

    transitions: Tensor
    rewards: Tensor
    terminated: Tensor | None = None

    def __post_init__(self) -> None:
        p = _real(self.transitions, "transitions")
        if p.dim() < 3 or p.shape[-1] != p.shape[-3] or 0 in p.shape[-3:]:
            raise ValueError(f"MDP: transitions: expected shape [..., S, A, S], got {list(p.shape)}")
        _check_probabilities(p, "transitions")
        sums = p.sum(-1)
        _check_sums(sums, "MDP: transitions")
        r = _real(self.rewards, "rewards").to(p.device)
        if r.shape != sums.shape:
            raise ValueError(f"MDP: rewards: expected shape [..., S, A] = {list(sums.shape)}, got {list(r.shape)}")
        if not r.isfinite().all():
            where = (~r.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"MDP: rewards: expected finite numbers, got {r[tuple(where)]} at {where}")
        end = _real(torch.tensor(0.0) if self.terminated is None else self.terminated, "terminated").to(p.device)
        _check_probabilities(end, "terminated")
        try:
            end = end.expand(p.shape)
        except RuntimeError:
            raise ValueError(
                f"MDP: terminated: expected a shape that broadcasts to {list(p.shape)}, that of transitions, "
                f"got {list(end.shape)}"
            ) from None
        object.__setattr__(self, "transitions", p / sums.unsqueeze(-1))
        object.__setattr__(self, "rewards", r)
        object.__setattr__(self, "terminated", end)

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions."""
        return self.rewards.shape[:-2]

    @property
    def n_states(self) -> int:
        """The number of states, S."""
        return self.rewards.shape[-2]

    @property
    def n_actions(self) -> int:
        """The number of actions, A."""
        return self.rewards.shape[-1]

    @cached_property
    def continuing(self) -> Tensor:
        """P(s', the episode continues | s, a), [..., S, A, S], the probabilities in the Bellman equations."""
        assert self.terminated is not None  # set by __post_init__
        return self.transitions * (1 - self.terminated)

    @classmethod
    def from_gymnasium(cls, env: Any) -> MDP:
        """Build the MDP of a Gymnasium environment with a transition table (FrozenLake, CliffWalking, Taxi).

        The table ``env.unwrapped.P[s][a]`` lists (probability, s', reward, done), where done means termination. The
        time limit of the wrapper is not in the table, so values are those of episodes without a time limit.

        Raises:
            ValueError: no such table, or states with different numbers of actions.
        """
        table = getattr(getattr(env, "unwrapped", None), "P", None)
        if not isinstance(table, dict) or not table:
            got = getattr(getattr(env, "spec", None), "id", None) or type(env).__name__
            raise ValueError(f"MDP: env: expected a table env.unwrapped.P, as in FrozenLake-v1, got {got}")
        if sorted(table) != [*range(len(table))]:
            raise ValueError(f"MDP: env: expected a table P of the states 0 to {len(table) - 1}, got {list(table)[:5]}")
        S, A = len(table), len(table[0])
        p, ended, r = torch.zeros(3, S, A, S, dtype=torch.float64).unbind()
        for s, actions in table.items():
            if len(actions) != A:
                raise ValueError(f"MDP: env: expected {A} actions in every state, got {len(actions)} in state {s}")
            for a, outcomes in actions.items():
                for probability, next_state, reward, done in outcomes:  # the same s' may be listed twice
                    if not 0 <= next_state < S:
                        raise ValueError(f"MDP: env: expected next states below {S}, got {next_state} after state {s}")
                    p[s, a, next_state] += probability
                    ended[s, a, next_state] += probability * bool(done)
                    r[s, a, next_state] += probability * float(reward)
        return cls(p, r.sum(-1), torch.where(p > 0, ended / p, 0.0).clamp(max=1))


def check_ends(continuing: Tensor, gamma: float, op: str) -> None:
    """Check that episodes end with certainty if γ = 1, whatever actions are chosen.

    An episode can last forever if and only if there is a set of states in which some action in every state neither
    leaves the set nor ends the episode. The largest such set is found by elimination: start with all states, and remove
    those where every action may leave the remaining set or end the episode.

    Args:
        continuing: P(s', the episode continues | s, a), [..., S, A, S].
        gamma: discount factor; there is nothing to check below 1.
        op: name of the calling function, for the error message.

    Raises:
        ValueError: γ = 1 and an episode can last forever; names a state where it can.
    """
    if gamma < 1:
        return
    may_end = continuing.sum(-1) < 1 - 1e-12
    remaining = torch.ones_like(may_end[..., 0])
    while True:
        leaves = ((continuing > 0) & ~remaining[..., None, None, :]).any(-1) | may_end
        smaller = remaining & ~leaves.all(-1)
        if smaller.equal(remaining):
            break
        remaining = smaller
    if remaining.any():
        *mdp, state = remaining.nonzero()[0].tolist()
        where = f"state {state}" + (f" of MDP {mdp}" if mdp else "")
        raise ValueError(
            f"{op}: gamma: 1 requires episodes that end with certainty, but from {where} an episode can last forever; "
            "expected gamma below 1, or `terminated` transitions"
        )


def policy_probabilities(mdp: MDP, policy: Any, op: str) -> Tensor:
    """Return the action probabilities of a policy, [..., S, A], normalized to sum 1; float64 if ``policy`` has actions.

    Args:
        mdp: the MDP.
        policy: actions, int64 [..., S], or probabilities, float [..., S, A]; a tensor or an array.
        op: name of the calling function, for error messages.

    Raises:
        TypeError: ``policy`` is neither an int64 nor a float tensor.
        ValueError: its shape does not fit the MDP, an action is out of range, or probabilities do not sum to 1.
    """
    S, A = mdp.n_states, mdp.n_actions
    if isinstance(policy, np.ndarray) and policy.dtype in (np.int64, np.float32, np.float64):
        policy = torch.from_numpy(policy)
    if not isinstance(policy, Tensor) or not (policy.is_floating_point() or policy.dtype == torch.int64):
        raise TypeError(f"{op}: policy: expected an int64 or float tensor, got {describe(policy)}")
    shape, tail = list(policy.shape), [S, A] if policy.is_floating_point() else [S]
    try:
        torch.broadcast_shapes(policy.shape[: -len(tail)], mdp.batch)
        matches = shape[-len(tail) :] == tail
    except RuntimeError:
        matches = False
    if not matches:
        batch = f", leading dimensions that broadcast with {list(mdp.batch)}" if mdp.batch else ""
        raise ValueError(f"{op}: policy: expected shape [..., {', '.join(map(str, tail))}]{batch}, got {shape}")
    if not policy.is_floating_point():
        outside = (policy < 0) | (policy >= A)
        if outside.any():
            raise ValueError(f"{op}: policy: expected actions in [0, {A - 1}], got {policy[outside][0]}")
        return F.one_hot(policy, A).double()
    if not (policy >= 0).all():
        raise ValueError(f"{op}: policy: expected probabilities, got {policy.min()}")
    sums = policy.double().sum(-1)
    _check_sums(sums, f"{op}: policy")
    return policy / sums.unsqueeze(-1)


def _real(value: Any, name: str) -> Tensor:
    """Convert an array-like of real numbers to a new float64 tensor."""
    try:
        # Via NumPy, lists become float64 instead of float32.
        x = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"MDP: {name}: expected an array of numbers, got {type(value).__name__} ({error})") from None
    if x.is_complex():
        raise TypeError(f"MDP: {name}: expected real numbers, got {x.dtype}")
    return x.to(torch.float64, copy=True)


def _check_probabilities(p: Tensor, name: str) -> None:
    """Check that all elements are probabilities, within rounding."""
    bad = ~((p >= 0) & (p <= 1 + _ROW_SUM_SLACK))  # True for NaN
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(f"MDP: {name}: expected probabilities, got {p[tuple(where)]} at {where}")


def _check_sums(sums: Tensor, name: str) -> None:
    """Check that the sums of distributions are one, within rounding."""
    off = (sums - 1).abs() > _ROW_SUM_SLACK
    if off.any():
        where = off.nonzero()[0].tolist()
        raise ValueError(f"{name}: expected rows that sum to one, got {sums[tuple(where)]} at {where}")
