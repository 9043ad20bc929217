"""Mutation controllers of ReNAS: the interface, and a controller that is not part of the paper.

The controller of the paper, an LSTM trained by REINFORCE, is in renas_lstm.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any, Protocol

import numpy as np

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.linear import (
    Array,
    Indices,
    RankModel,
    centered,
    one_hot,
    ridge_regression,
    standardized,
)
from automl_ext.nas.strategies.strategy import Screened, set_rng

Change = tuple[int, int]  # index of a decision, index of its new choice
Parent = tuple[Indices, Evaluation]


class Controller(Protocol):
    """Interface of a controller, which chooses the mutation of a parent."""

    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        """Return one of ``changes``, the legal mutations of ``parent``."""
        ...

    def learn(self, child: Indices, evaluation: Evaluation, parent: Parent | None = None) -> None:
        """Learn from an evaluated architecture.

        It is called for mutated architectures in the order of the calls to :meth:`choose` that produced them.

        Args:
            parent: the parent of a mutated architecture; None: it was sampled uniformly.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as tensors and plain Python."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        ...


class HistoryController:
    """Ridge regression of all scores on the choices of the architectures. It is not part of the paper.

        w = argmin ‖Zw − y‖² + ridge · ‖w‖²,  Z one-hot choices, y standardized scores
        P(change) ∝ exp((w[new choice] − w[old choice]) / temperature), or uniform with probability ``explore``

    With screened candidates, Z has one more column, the training-free rank of the architecture (see
    :class:`~automl_ext.nas.strategies.linear.RankModel`), and its change adds to the predicted gain. The weight of this
    column is fitted to the evaluations, like the others.

    In contrast to a policy, which is rewarded for one change at a time, the regression estimates the effects of all
    choices from all evaluations. A failed architecture counts as the worst one so far.

    If children inherit weights, scores rise with every generation, so absolute scores would credit the choices that
    late candidates have in common. With ``inherit``, the row of a child is therefore its choices minus its parent's,
    the target is its score minus its parent's, and one more column, 1 for children, takes up the average rise per
    generation. Candidates without a parent are compared with their mean.

    Args:
        ridge: weight of the penalty ‖w‖².
        temperature: temperature of the softmax, in standard deviations of the scores.
        explore: probability of a uniformly drawn change.
        inherit: whether children inherit weights from their parents.
        screened: candidates with their training-free ranks.
    """

    def __init__(
        self,
        space: Space[Any],
        seed: int,
        ridge: float = 1.0,
        temperature: float = 0.3,
        explore: float = 0.1,
        inherit: bool = False,
        screened: Sequence[Screened] = (),
    ) -> None:
        self.rng = Random(seed)
        self.ridge, self.temperature, self.explore = ridge, temperature, explore
        self.num_choices = space.num_choices
        self.first = np.cumsum([0, *space.num_choices]).tolist()  # column of choice 0 of each decision
        self.rank = RankModel(space, screened) if screened else None
        self.inherit = inherit
        self.history: list[Indices] = []
        self.scores: list[float] = []
        self.parents: list[tuple[Indices, float] | None] = []  # with ``inherit``: the parent and its score

    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        if self.rng.random() < self.explore or not self.history:
            return self.rng.choice(changes)
        effects, first = self.effects(), self.first
        gains = [effects[first[d] + k] - effects[first[d] + parent[d]] for d, k in changes]
        if self.rank is not None:
            before = self.rank(parent)
            for i, (d, k) in enumerate(changes):
                gains[i] += effects[first[-1]] * (self.rank((*parent[:d], k, *parent[d + 1 :])) - before)
        best = max(gains)
        return self.rng.choices(changes, [math.exp((gain - best) / self.temperature) for gain in gains])[0]

    def effects(self) -> list[float]:
        """Return the effect of every choice of every decision on the score, in standard deviations.

        With screened candidates, one more number follows: the effect of one standard deviation of the rank. With
        ``inherit``, the last number is the average rise per generation.
        """
        design, targets = self.features(self.history), np.array(self.scores)
        design, targets = self.gains(design, targets) if self.inherit else (design, standardized(targets))
        return ridge_regression(design, targets, self.ridge).tolist()

    def features(self, architectures: Sequence[Indices]) -> Array:
        """Return the choices of each architecture, and with screened candidates its rank."""
        design = one_hot(self.num_choices, architectures)
        if self.rank is None:
            return design
        return np.column_stack([design, [self.rank(architecture) for architecture in architectures]])

    def gains(self, design: Array, scores: Array) -> tuple[Array, Array]:
        """Return rows and targets relative to the parents, or to the mean of the candidates without a parent."""
        child = np.array([parent is not None for parent in self.parents])
        known = zip(self.parents, self.history, strict=True)
        before = self.features([own if parent is None else parent[0] for parent, own in known])
        design = np.where(child[:, None], design - before, design - design[~child].mean(axis=0))
        targets = scores - [0.0 if parent is None else parent[1] for parent in self.parents]
        targets[~child] = centered(targets[~child])
        finite = np.isfinite(targets)
        targets[~finite] = targets[finite].min()  # failed children
        return np.column_stack([design, child]), targets / max(targets.std(), 1e-12)

    def learn(self, child: Indices, evaluation: Evaluation, parent: Parent | None = None) -> None:
        self.history.append(child)
        self.scores.append(evaluation.score)
        if self.inherit and parent is not None and not parent[1].failed:
            self.parents.append((parent[0], parent[1].score))
        else:  # a failed parent has no weights to inherit
            self.parents.append(None)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.getstate(),
            "history": list(self.history),
            "scores": list(self.scores),
            "parents": list(self.parents),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.history, self.scores = [tuple(indices) for indices in state["history"]], list(state["scores"])
        self.parents = [None if p is None else (tuple(p[0]), p[1]) for p in state["parents"]]
