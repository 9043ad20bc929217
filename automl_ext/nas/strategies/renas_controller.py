"""Which mutation is promising: what ReNAS asks of a controller, and one that learns from the whole history.

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
from automl_ext.nas.strategies.strategy import set_rng

Change = tuple[int, int]  # a decision, and the choice that it changes to
Indices = tuple[int, ...]  # an architecture, as the space encodes it


class Controller(Protocol):
    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        """One of ``changes`` of ``parent``; all of them are legal."""
        ...

    def learn(
        self,
        child: Indices,
        evaluation: Evaluation,
        parent: Indices | None = None,
        parent_evaluation: Evaluation | None = None,
    ) -> None:
        """What an architecture was worth. Those that were not drawn uniformly have a parent; they come in the order in
        which :meth:`choose` chose them."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class HistoryController:
    """Ridge regression of all scores so far on the architectures' choices; ours, not the paper's.

        w = argmin ‖Zw − y‖² + ridge · ‖w‖²,  Z one-hot, y the scores standardised
        P(change) ∝ exp((w[new choice] − w[old choice]) / temperature), but uniform with probability ``explore``

    A hundred evaluations say more about single choices, averaged over all their contexts, than a policy can learn from
    being rewarded for one change at a time. A failed architecture counts as the worst one so far.

    Args:
        temperature: in standard deviations of the scores.
    """

    def __init__(
        self, space: Space[Any], seed: int, ridge: float = 1.0, temperature: float = 0.3, explore: float = 0.1
    ) -> None:
        self.rng = Random(seed)
        self.ridge, self.temperature, self.explore = ridge, temperature, explore
        self.first = np.cumsum([0, *space.num_choices])  # column of a decision's choice 0
        self.history: list[Indices] = []
        self.scores: list[float] = []

    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        if self.rng.random() < self.explore or not self.history:
            return self.rng.choice(changes)
        effects = self.effects()
        first = self.first.tolist()
        gains = [effects[first[d] + k] - effects[first[d] + parent[d]] for d, k in changes]
        best = max(gains)
        return self.rng.choices(changes, [math.exp((gain - best) / self.temperature) for gain in gains])[0]

    def effects(self) -> list[float]:
        """What every choice of every decision adds to the score, in standard deviations."""
        columns = np.array(self.history) + self.first[:-1]
        design = np.zeros((len(columns), self.first[-1]))
        np.put_along_axis(design, columns, 1.0, axis=1)
        scores = np.array(self.scores)
        finite = np.isfinite(scores)
        if not finite.any():
            return [0.0] * design.shape[1]
        scores = np.where(finite, scores, scores[finite].min())
        scores = (scores - scores.mean()) / max(scores.std(), 1e-12)
        gram = design.T @ design + self.ridge * np.eye(design.shape[1])
        return np.linalg.solve(gram, design.T @ scores).tolist()

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
