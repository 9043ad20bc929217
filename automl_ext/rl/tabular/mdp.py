"""Finite Markov decision processes as arrays, one or a batch; :mod:`automl_ext.rl.tabular.solvers` solves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.ops._checks import describe

_ROW_SUM_SLACK = 1e-6  # what float32 probabilities leave


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP, or a batch of them in leading dims; S states, A actions. What comes is made float64.

    Whether an episode ends belongs to the transition, not to the state: in Gymnasium's Taxi the drop-off ends it in a
    state that other moves reach without an end. Truncation (a time limit) is no part of an MDP.

    Attributes:
        transitions: [..., S, A, S], P(s' | s, a). Rows sum to one, within 1e-6, and are divided by their sums.
        rewards: [..., S, A], E[r | s, a]; where rewards depend on s', ``(transitions * rewards).sum(-1)``.
        terminated: P(the episode ends | s, a, s'), what broadcasts to ``transitions``; None: it never ends. A bool [S]
            of terminal states serves (batches: [..., 1, 1, S]): to arrive there ends the episode.

    Raises:
        TypeError: what is no array of real numbers.
        ValueError: differing shapes, no states or actions, no probabilities, rewards that are not finite.
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
                f"MDP: terminated: expected what broadcasts to transitions, {list(p.shape)}, got {list(end.shape)}"
            ) from None
        object.__setattr__(self, "transitions", p / sums.unsqueeze(-1))
        object.__setattr__(self, "rewards", r)
        object.__setattr__(self, "terminated", end)

    @property
    def batch(self) -> torch.Size:
        """The leading dims."""
        return self.rewards.shape[:-2]

    @property
    def n_states(self) -> int:
        return self.rewards.shape[-2]

    @property
    def n_actions(self) -> int:
        return self.rewards.shape[-1]

    @cached_property
    def continuing(self) -> Tensor:
        """[..., S, A, S], P(s', and the episode goes on | s, a): all that Bellman's equations need to know of s'."""
        assert self.terminated is not None  # the constructor fills it in
        return self.transitions * (1 - self.terminated)

    @classmethod
    def from_gymnasium(cls, env: Any) -> MDP:
        """The MDP of a Gymnasium environment that publishes its table (FrozenLake, CliffWalking, Taxi).

        The table ``env.unwrapped.P[s][a]`` lists (probability, s', reward, done). Its done is a termination; the
        wrapper's time limit is not in it, so values are those of episodes without one.

        Raises:
            ValueError: no such table, or states that differ in their number of actions.
        """
        table = getattr(getattr(env, "unwrapped", None), "P", None)
        if not isinstance(table, dict) or not table:
            got = getattr(getattr(env, "spec", None), "id", None) or type(env).__name__
            raise ValueError(f"MDP: env: expected one with a table env.unwrapped.P, as FrozenLake-v1 has, got {got}")
        S, A = len(table), len(table[0])
        p, ended, r = torch.zeros(3, S, A, S, dtype=torch.float64).unbind()
        for s, actions in table.items():
            if len(actions) != A:
                raise ValueError(f"MDP: env: expected {A} actions in every state, got {len(actions)} in state {s}")
            for a, outcomes in actions.items():
                for probability, following, reward, done in outcomes:  # the same s' may be listed twice
                    p[s, a, following] += probability
                    ended[s, a, following] += probability * bool(done)
                    r[s, a, following] += probability * float(reward)
        return cls(p, r.sum(-1), torch.where(p > 0, ended / p, 0.0).clamp(max=1))


def check_ends(continuing: Tensor, gamma: float, op: str) -> None:
    """Raise where γ = 1 and some choice of actions can keep an episode, [..., S, A, S], going for ever.

    It can in the largest set of states that some actions never leave, nor end in: all states, less those where every
    action may leave what is left.
    """
    if gamma < 1:
        return
    may_end = continuing.sum(-1) < 1 - 1e-12
    kept = torch.ones_like(may_end[..., 0])
    while True:
        leaves = ((continuing > 0) & ~kept[..., None, None, :]).any(-1) | may_end
        smaller = kept & ~leaves.all(-1)
        if smaller.equal(kept):
            break
        kept = smaller
    if kept.any():
        *mdp, state = kept.nonzero()[0].tolist()
        where = f"state {state}" + (f" of MDP {mdp}" if mdp else "")
        raise ValueError(
            f"{op}: gamma: 1 needs episodes that are sure to end, and from {where} one can go on for ever; "
            "expected gamma below 1, or `terminated` transitions"
        )


def policy_probabilities(mdp: MDP, policy: Any, op: str) -> Tensor:
    """A policy of either form as probabilities, [..., S, A]."""
    S, A = mdp.n_states, mdp.n_actions
    if not isinstance(policy, Tensor) or not (policy.is_floating_point() or policy.dtype == torch.int64):
        raise TypeError(f"{op}: policy: expected an int64 or float tensor, got {describe(policy)}")
    shape, tail = list(policy.shape), [S, A] if policy.is_floating_point() else [S]
    try:
        torch.broadcast_shapes(policy.shape[: -len(tail)], mdp.batch)
        matches = shape[-len(tail) :] == tail
    except RuntimeError:
        matches = False
    if not matches:
        batch = f", {list(mdp.batch)} before it" if mdp.batch else ""
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
    try:
        x = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))  # lists: float64, not float32
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"MDP: {name}: expected an array of numbers, got {type(value).__name__} ({error})") from None
    if x.is_complex():
        raise TypeError(f"MDP: {name}: expected real numbers, got {x.dtype}")
    return x.to(torch.float64, copy=True)


def _check_probabilities(p: Tensor, name: str) -> None:
    bad = ~((p >= 0) & (p <= 1 + _ROW_SUM_SLACK))  # true for NaN
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(f"MDP: {name}: expected probabilities, got {p[tuple(where)]} at {where}")


def _check_sums(sums: Tensor, name: str) -> None:
    """Whether distributions sum to one."""
    off = (sums - 1).abs() > _ROW_SUM_SLACK
    if off.any():
        where = off.nonzero()[0].tolist()
        raise ValueError(f"{name}: expected rows that sum to one, got {sums[tuple(where)]} at {where}")
