"""Random search: every candidate is drawn uniformly and independently, after the screened ones if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.search_options import ScreenedSearchConfig
from automl_ext.nas.strategies.strategy import Candidate, Screened, set_rng, starting


class RandomSearch:
    """A :class:`~automl_ext.nas.strategies.strategy.Strategy` that ignores the scores.

    Args:
        screened: candidates to propose first, best first.
    """

    def __init__(self, space: Space[Any], seed: int, screened: Sequence[Screened] = ()) -> None:
        self.space, self.rng, self.screened, self.asked = space, Random(seed), screened, 0

    def ask(self) -> Candidate:
        self.asked += 1
        return Candidate(starting(self.space, self.rng, self.screened, self.asked - 1))

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.getstate(), "asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.asked = state["asked"]


@dataclass
class RandomConfig(ScreenedSearchConfig):
    """Configuration of random search, which draws every architecture uniformly."""

    def strategy(self, space: Space[Any], screened: Sequence[Screened] = ()) -> RandomSearch:
        return RandomSearch(space, self.seed, screened)
