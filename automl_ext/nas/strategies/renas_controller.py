"""Mutation controllers of ReNAS: the interface, and a controller that learns from all scores.

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
from automl_ext.nas.strategies.linear import Indices, RankModel, one_hot, ridge_regression, standardized
from automl_ext.nas.strategies.strategy import Screened, set_rng

Change = tuple[int, int]  # index of a decision, index of its new choice


class Controller(Protocol):
    """Interface of a controller, which chooses the mutation of a parent."""

    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        """Return one of ``changes``, the legal mutations of ``parent``."""
        ...

    def learn(
        self,
        child: Indices,
        evaluation: Evaluation,
        parent: Indices | None = None,
        parent_evaluation: Evaluation | None = None,
    ) -> None:
        """Learn from an evaluated architecture.

        It is called for mutated architectures in the order of the calls to :meth:`choose` that produced them.

        Args:
            parent: None if the architecture was sampled uniformly.
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

    Args:
        ridge: weight of the penalty ‖w‖².
        temperature: in standard deviations of the scores.
        explore: probability of a uniformly drawn change.
        screened: candidates with their training-free ranks.
    """

    def __init__(
        self,
        space: Space[Any],
        seed: int,
        ridge: float = 1.0,
        temperature: float = 0.3,
        explore: float = 0.1,
        screened: Sequence[Screened] = (),
    ) -> None:
        self.rng = Random(seed)
        self.ridge, self.temperature, self.explore = ridge, temperature, explore
        self.num_choices = space.num_choices
        self.first = np.cumsum([0, *space.num_choices]).tolist()  # column of choice 0 of each decision
        self.rank = RankModel(space, screened) if screened else None
        self.history: list[Indices] = []
        self.scores: list[float] = []

    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        if self.rng.random() < self.explore or not self.history:
            return self.rng.choice(changes)
        effects, first = self.effects(), self.first
        gains = [effects[first[d] + k] - effects[first[d] + parent[d]] for d, k in changes]
        if self.rank is not None:
            before = self.rank(parent)
            for i, (d, k) in enumerate(changes):
                gains[i] += effects[-1] * (self.rank((*parent[:d], k, *parent[d + 1 :])) - before)
        best = max(gains)
        return self.rng.choices(changes, [math.exp((gain - best) / self.temperature) for gain in gains])[0]

    def effects(self) -> list[float]:
        """Return the effect of every choice of every decision on the score, in standard deviations.

        With screened candidates, the last number is the effect of one standard deviation of the rank.
        """
        design = one_hot(self.num_choices, self.history)
        if self.rank is not None:
            ranks = np.array([self.rank(architecture) for architecture in self.history])
            design = np.column_stack([design, ranks])
        return ridge_regression(design, standardized(np.array(self.scores)), self.ridge).tolist()

    def learn(
        self,
        child: Indices,
        evaluation: Evaluation,
        parent: Indices | None = None,
        parent_evaluation: Evaluation | None = None,
    ) -> None:
        self.history.append(child)
        self.scores.append(evaluation.score)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.getstate(), "history": list(self.history), "scores": list(self.scores)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.history, self.scores = [tuple(indices) for indices in state["history"]], list(state["scores"])
