"""How search strategies learn what an architecture is worth: an evaluator gives its score and what that cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found. A candidate that diverges has ``failed`` and the score −inf."""

    score: float  # to maximise
    cost: float  # seconds
    state: dict[str, Any] | None = None  # to go on from, or for others to inherit from
    failed: bool = False
    measured: dict[str, float] = field(default_factory=dict)


class Evaluator(Protocol):
    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Score ``genotype``.

        Args:
            budget: epochs.
            state: of an earlier Evaluation, to go on from or to inherit from.
        """
        ...
