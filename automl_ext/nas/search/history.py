"""The evaluations of a search, the best one, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Candidate


class Entry(NamedTuple):
    """One evaluation."""

    indices: tuple[int, ...]  # the architecture, encoded by the space
    budget: int  # epochs; 0: the evaluator's default
    score: float
    cost: float  # seconds
    failed: bool
    measured: dict[str, float]


class History:
    """All evaluations within the budget, in order. The best one has the highest score at the largest budget.

    Args:
        seconds: cost of a screening before the evaluations.
    """

    def __init__(self, space: Space[Any], seconds: float = 0.0) -> None:
        self.space = space
        self.entries: list[Entry] = []
        self.seconds = seconds  # total cost of the screening and all evaluations
        self.failed = 0  # number of failed evaluations
        self.best: Entry | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Append an evaluation."""
        indices = tuple(self.space.encode(candidate.genotype))
        score, cost, measured = evaluation.score, evaluation.cost, dict(evaluation.measured)
        entry = Entry(indices, candidate.budget or 0, score, cost, evaluation.failed, measured)
        self.entries.append(entry)
        self.seconds += evaluation.cost
        self.failed += entry.failed
        self._compare(entry)

    def _compare(self, entry: Entry) -> None:
        if not entry.failed and (
            self.best is None or (entry.budget, entry.score) > (self.best.budget, self.best.score)
        ):
            self.best = entry

    def scalars(self) -> dict[str, float]:
        """Return the values of the last evaluation for ``metrics.jsonl``.

        ``seconds`` and ``failed`` are totals of all evaluations so far.
        """
        last = self.entries[-1]
        best = self.best.score if self.best else math.nan
        values = {"score": last.score, "best_score": best, "cost": last.cost, "seconds": self.seconds}
        values["failed"] = self.failed
        return values | ({"budget": last.budget} if last.budget else {}) | last.measured

    def pareto(self) -> list[dict[str, Any]]:
        """Return the Pareto front of score against parameters, at the budget of the best evaluation.

        It is empty if the numbers of parameters were not measured.
        """
        entries = [e for e in self.entries if self.best and e.budget == self.best.budget and not e.failed]
        if not all("parameters" in e.measured for e in entries):
            return []
        front = pareto_front([e.measured["parameters"] for e in entries], [e.score for e in entries])
        return [
            {
                "genotype": str(self.space.decode(entries[i].indices)),
                "score": entries[i].score,
                "parameters": int(entries[i].measured["parameters"]),
            }
            for i in front
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"entries": [tuple(entry) for entry in self.entries], "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.entries, self.seconds, self.best = [Entry(*entry) for entry in state["entries"]], state["seconds"], None
        self.failed = sum(entry.failed for entry in self.entries)
        for entry in self.entries:
            self._compare(entry)


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Return the indices of the non-dominated points, by increasing cost.

    A point is dominated if another one has no higher cost and no lower score, and is better in one of them. Of equal
    points only the first is returned.
    """
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i])):
        if not front or scores[i] > scores[front[-1]]:
            front.append(i)
    return front
