"""Evaluators: the interface between search strategies and the ways to score an architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation. If the candidate diverged, ``failed`` is True and the score is −inf."""

    score: float  # to maximize
    cost: float  # seconds that the budget counts
    state: dict[str, Any] | None = None  # training state, to continue from or to inherit weights from
    failed: bool = False
    # Further measurements by name. "generation": the number of ancestors whose weights the network inherits.
    measured: dict[str, float] = field(default_factory=dict)


class Evaluator(Protocol):
    """Interface of everything that scores architectures."""

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Score ``genotype``.

        Args:
            budget: number of epochs; None: the evaluator's default.
            state: the state of an earlier evaluation, to continue from or to inherit weights from.

        Returns:
            The score, the cost in seconds, and further measurements.
        """
        ...


class Scoring(NamedTuple):
    """The source of the scores of one search."""

    evaluator: Callable[[], Evaluator]  # makes the evaluator; called after ``job`` has finished
    final: Callable[[], Evaluator] | None = None  # makes the evaluator of the finalists; None: scores are final
    job: Any = None  # a Job with a clock: a training that must finish first, such as that of a supernet
