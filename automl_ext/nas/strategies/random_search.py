"""Random search: every candidate is drawn uniformly and independently."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.config import SearchConfig
from automl_ext.nas.strategies.strategy import Candidate, set_rng


class RandomSearch:
    """A :class:`~automl_ext.nas.strategies.strategy.Strategy` that ignores the scores."""

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


@dataclass
class RandomConfig(SearchConfig):
    """Configuration of random search, which draws every architecture uniformly."""

    def strategy(self, space: Space[Any]) -> RandomSearch:
        return RandomSearch(space, self.seed)
