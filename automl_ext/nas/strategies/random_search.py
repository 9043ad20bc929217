"""Random search: every candidate drawn uniformly, and anew."""

from __future__ import annotations

from random import Random
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Candidate, set_rng


class RandomSearch:
    """A :class:`~automl_ext.nas.strategies.strategy.Strategy` that learns nothing."""

    def __init__(self, space: Space[Any], seed: int) -> None:
        self.space, self.rng = space, Random(seed)

    def ask(self) -> Candidate:
        return Candidate(self.space.random(self.rng))

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
