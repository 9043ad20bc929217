"""The evaluations of a search, the best one, and the Pareto front."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.screening.score_job import distinct
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.linear import centered, one_hot, ridge_regression
from automl_ext.nas.strategies.strategy import Candidate
from automl_ext.training.files.reading import short

Score = TypeVar("Score", float, tuple[int, float])
COSTS = {"parameters": "parameters", "macs": "multiply-adds", "latency_ms": "ms per image"}


class Entry(NamedTuple):
    """One evaluation."""

    indices: tuple[int, ...]  # the architecture, encoded by the space
    budget: int  # epochs; 0: the evaluator's default
    score: float
    cost: float  # seconds
    failed: bool
    measured: dict[str, float]


class History:
    """All evaluations of the strategy's candidates, in order. The best one has the highest score at the largest budget.

    Args:
        seconds: cost of a screening and of the training of a supernet, if they precede the evaluations.
    """

    def __init__(self, space: Space[Any], seconds: float = 0.0) -> None:
        self.space = space
        self.entries: list[Entry] = []
        self.seconds = seconds  # total cost so far, with that of all evaluations
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
        """Return the measurements of the last evaluation, the best score so far and totals, for ``metrics.jsonl``.

        ``seconds`` is the total cost so far, including the screening and the supernet; ``failed`` is the number of
        failed evaluations.
        """
        last = self.entries[-1]
        best = self.best.score if self.best else math.nan
        values = {"score": last.score, "best_score": best, "cost": last.cost, "seconds": self.seconds}
        values["failed"] = self.failed
        return values | ({"budget": last.budget} if last.budget else {}) | last.measured

    def choose(self, limits: dict[str, float], number: int = 1) -> list[Entry]:
        """Return the evaluations of the best ``number`` architectures within the limits, best first.

        An evaluation at a larger budget is better; at equal budgets, one with a higher score minus the :meth:`rise` of
        its generation. If these are equal, too, the earlier one is better, with limits the cheaper one. Of
        architectures that compute the same function, only the best one is returned. If none is within the limits, see
        :func:`best_within`.
        """
        rise = self.rise()
        entries = [entry for entry in self.entries if not entry.failed]
        if limits:
            names = measured_costs(entries)
            entries.sort(key=lambda entry: [entry.measured[name] for name in names])
        scores = [(e.budget, e.score - rise * e.measured.get("generation", 0)) for e in entries]
        different: dict[Any, Entry] = {}
        for i in best_within(limits, scores, [e.measured for e in entries]):
            if len(different) == number:
                break
            different.setdefault(distinct(self.space, self.space.decode(entries[i].indices)), entries[i])
        return list(different.values())

    def rise(self) -> float:
        """Estimate by how much the score rises with each generation of inherited weights; 0 without inheritance.

        Late generations have the highest scores, because their weights have been trained longer. Their architectures
        are also better on average, so subtracting the mean score of each generation would be wrong, too. A ridge
        regression of the scores on the choices and on the generation separates the two effects. It assumes that every
        generation adds the same. This need not be exact, because several candidates are then trained from scratch. The
        rise is negative if children, which are trained for fewer epochs, lose more than they inherit.
        """
        entries = [entry for entry in self.entries if not entry.failed]
        generations = np.array([entry.measured.get("generation", 0.0) for entry in entries])
        if not generations.any():
            return 0.0
        design = one_hot(self.space.num_choices, [entry.indices for entry in entries])
        scores = centered(np.array([entry.score for entry in entries]))
        return float(ridge_regression(np.column_stack([design, generations]), scores, 1.0)[-1])

    def pareto(self, budget: int) -> list[dict[str, Any]]:
        """Return genotype, score and costs of each entry of the Pareto front, by increasing costs.

        Only evaluations at ``budget`` that did not fail are considered, because their scores are comparable. The list
        is empty if no costs were measured.
        """
        entries = [e for e in self.entries if e.budget == budget and not e.failed]
        names = measured_costs(entries)
        costs = [[e.measured[name] for name in names] for e in entries]
        front = pareto_front(costs, [e.score for e in entries]) if names else []
        return [
            {
                "genotype": str(self.space.decode(entries[i].indices)),
                "score": entries[i].score,
                **{name: plain_number(cost) for name, cost in zip(names, costs[i], strict=True)},
            }
            for i in front
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"entries": [tuple(entry) for entry in self.entries], "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.entries, self.seconds, self.best = [Entry(*entry) for entry in state["entries"]], state["seconds"], None
        if type(self.seconds) not in (int, float) or not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds: expected a number of at least 0, got {short(self.seconds)}")
        self.failed = sum(entry.failed for entry in self.entries)
        for entry in self.entries:
            self._compare(entry)


def measured_costs(entries: Sequence[Entry]) -> list[str]:
    """Return the names of the costs that all entries have."""
    return [name for name in COSTS if entries and all(name in entry.measured for entry in entries)]


def plain_number(value: float) -> float:
    """Return a whole number as an int."""
    return int(value) if float(value).is_integer() else value


def pareto_front(costs: Sequence[float | Sequence[float]], scores: Sequence[float]) -> list[int]:
    """Return the indices of the non-dominated points, by increasing cost.

    A point is dominated if another one has no higher cost and no lower score, and is better in one of them. Of equal
    points only the first is returned.
    """
    rows = [tuple(cost) if isinstance(cost, Sequence) else (cost,) for cost in costs]
    front: list[int] = []
    # A point that dominates another one, or is equal and first, comes before it.
    for i in sorted(range(len(rows)), key=lambda i: (rows[i], -scores[i])):
        cheaper = (k for k in front if all(a <= b for a, b in zip(rows[k], rows[i], strict=True)))
        if not any(scores[k] >= scores[i] for k in cheaper):
            front.append(i)
    return front


def best_within(limits: dict[str, float], scores: Sequence[Score], costs: Sequence[dict[str, float]]) -> list[int]:
    """Return the indices of the candidates within all limits, by decreasing score; equal scores keep their order.

    If there is none, warn and return the one candidate that exceeds its limits by the smallest factor.

    Args:
        limits: name of a cost → its largest value.
        scores: score of each candidate; or its budget and score, if a larger budget takes precedence.
        costs: per candidate, name → value.
    """
    excess = [max((cost[name] / limit for name, limit in limits.items()), default=0.0) for cost in costs]
    inside = [i for i in range(len(scores)) if excess[i] <= 1]
    if inside:
        return sorted(inside, key=lambda i: scores[i], reverse=True)
    nearest = min(range(len(scores)), key=lambda i: excess[i])
    facts = ", ".join(f"{costs[nearest][name]:g} {COSTS[name]} (at most {limit:g})" for name, limit in limits.items())
    warnings.warn(f"no evaluated architecture is within the limits; the nearest one has {facts}", stacklevel=2)
    return [nearest]
