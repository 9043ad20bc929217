"""Regularized evolution, REA (Real et al., AAAI 2019, algorithm 1).

draw the first ``population`` candidates uniformly, or take the best screened ones, then repeat:
    parent = the best of ``sample`` members drawn with replacement
    child  = a neighbor of the parent, drawn uniformly
    with --inherit: the child inherits the parent's weights, as in ReNAS (automl_ext.nas.estimators.inheritance)
    add the child to the population and remove the oldest member, whatever its score
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.search_options import ScreenedSearchConfig
from automl_ext.nas.strategies.strategy import (
    Candidate,
    Evaluated,
    Screened,
    at_least,
    pack,
    set_rng,
    starting,
    tournament,
    unpack,
)
from automl_ext.nas.training.training_options import LARGEST, MANY
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Range


class Evolution:
    """Regularized evolution, a :class:`~automl_ext.nas.strategies.strategy.Strategy`.

    Args:
        population: number of members.
        sample: number of members that compete to be a parent.
        inherit: whether children inherit from their parent's state; the population then keeps the states.
        screened: candidates for the initial population, best first.

    Raises:
        ValueError: ``population`` or ``sample`` is below 1.
    """

    def __init__(
        self,
        space: Space[Any],
        seed: int,
        population: int = 10,
        sample: int = 3,
        inherit: bool = False,
        screened: Sequence[Screened] = (),
    ) -> None:
        at_least("population", population, 1)
        at_least("sample", sample, 1)
        self.space, self.rng, self.size, self.sample = space, Random(seed), population, sample
        self.inherit, self.screened, self.asked = inherit, screened, 0
        self.population: deque[Evaluated] = deque(maxlen=population)  # oldest first

    def ask(self) -> Candidate:
        self.asked += 1
        if self.asked <= self.size or not self.population:
            return Candidate(starting(self.space, self.rng, self.screened, self.asked - 1))
        parent = tournament(self.population, self.sample, self.rng)
        return Candidate(self.space.mutate(parent.genotype, self.rng), parent=parent)

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        kept = evaluation if self.inherit else replace(evaluation, state=None)
        self.population.append(Evaluated(candidate.genotype, kept))

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.getstate(),
            "asked": self.asked,
            "population": pack(self.space, self.population),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.asked = state["asked"]
        self.population = deque(unpack(self.space, state["population"]), maxlen=self.size)


def warn_if_random(config: ScreenedSearchConfig, population: int) -> None:
    """Warn if the search ends before the first mutation."""
    most = config.limits()[0] - config.final_trainings()
    if most <= population:
        warnings.warn(
            f"evaluations: all {most} are of the initial population of {population}: nothing is mutated", stacklevel=3
        )


@dataclass
class EvolutionConfig(ScreenedSearchConfig):
    """Configuration of regularized evolution (Real et al. 2019)."""

    population: Annotated[int, Range(5, 100, log=True)] = 10
    """Number of members of the population; a new member replaces the oldest."""
    sample: Annotated[int, Range(2, 20)] = 3  # Number of members that compete to be a parent.
    inherit: bool = False  # Children inherit the weights of their parents. Evaluator "train" only.
    fine_tune: int = 1  # Epochs of a child that inherits weights.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "population", "sample", low=1, high=MANY)
        check_range(self, "fine_tune", low=1, high=LARGEST)
        # Where it is the default, other evaluators ignore it.
        if self.inherit and not type(self).inherit and self.evaluator != "train":
            raise ValueError(f"inherit: children inherit with --evaluator train only, got {self.evaluator!r}")
        if self.inherits and self.fine_tune > self.training_epochs:
            raise ValueError(f"fine_tune: expected at most {self.training_epochs} (epochs), got {self.fine_tune}")

    @property
    def inherits(self) -> bool:
        """Whether children inherit weights: other evaluators than "train" have none to inherit."""
        return self.inherit and self.evaluator == "train"

    def strategy(self, space: Space[Any], screened: Sequence[Screened] = ()) -> Evolution:
        warn_if_random(self, self.population)
        return Evolution(space, self.seed, self.population, self.sample, self.inherits, screened)
