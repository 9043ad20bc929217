"""ReNAS: evolution whose mutations a controller chooses (Chen et al., CVPR 2019, "RENAS: Reinforced Evolutionary NAS").

    the first ``population`` candidates are drawn uniformly; then
    parent = the best of ``sample`` members drawn with replacement
    child  = parent, with the one decision changed that the controller chooses
    the child inherits the parent's weights (what changed is initialised anew) and is trained for a little longer
    the controller learns from the child's score;  the child joins the population, whose oldest member leaves it

The paper states neither the population's size nor the tournament's, and its authors' code holds no search: population,
sample, replacement of the oldest and the controllers' rewards are our choice. So is this: nothing is visited twice.
Inheriting is the evaluator's part (automl_ext.nas.estimators.inheritance); a table has no weights, there it means nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from random import Random
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.renas_controller import Change, Controller
from automl_ext.nas.strategies.strategy import Candidate, Evaluated, at_least, pack, set_rng, tournament, unpack

DRAWS = 1000  # of an architecture that has not been visited


class ReNAS:
    """A :class:`~automl_ext.nas.strategies.strategy.Strategy`.

    Args:
        controller: chooses mutations, and learns.
        inherit: whether children go on from their parent's state; the population then keeps states.

    Raises:
        ValueError: population or sample below 1.
    """

    def __init__(
        self,
        space: Space[Any],
        seed: int,
        controller: Controller,
        population: int = 30,
        sample: int = 10,
        inherit: bool = False,
    ) -> None:
        at_least("population", population, 1)
        at_least("sample", sample, 1)
        self.space, self.rng, self.controller = space, Random(seed), controller
        self.size, self.sample, self.inherit = population, sample, inherit
        self.asked = 0
        self.seen: set[tuple[int, ...]] = set()
        self.population: deque[Evaluated] = deque(maxlen=population)  # the oldest first

    def ask(self) -> Candidate:
        self.asked += 1
        parent = None
        if self.asked > self.size and self.population:
            parent = tournament(self.population, self.sample, self.rng)
        changes = [] if parent is None else self.new_neighbours(parent.genotype)
        if parent is None or not changes:
            return self.candidate(self.unseen(), None)
        indices = list(self.space.encode(parent.genotype))
        decision, choice = self.controller.choose(tuple(indices), changes)
        indices[decision] = choice
        return self.candidate(self.space.decode(indices), parent)

    def candidate(self, genotype: Any, parent: Evaluated | None) -> Candidate:
        self.seen.add(tuple(self.space.encode(genotype)))
        return Candidate(genotype, parent=parent)

    def new_neighbours(self, genotype: Any) -> list[Change]:
        """Changes of one decision that lead to what has not been visited."""
        indices = tuple(self.space.encode(genotype))
        changes = [(d, k) for d in range(len(indices)) for k in self.space.legal(genotype, d)]
        return [(d, k) for d, k in changes if (*indices[:d], k, *indices[d + 1 :]) not in self.seen]

    def unseen(self) -> Any:
        """Drawn uniformly from what has not been visited; after many attempts, from everything."""
        for _ in range(DRAWS):
            genotype = self.space.random(self.rng)
            if tuple(self.space.encode(genotype)) not in self.seen:
                break
        return genotype

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        parent = candidate.parent
        indices = tuple(self.space.encode(candidate.genotype))
        if parent is None:
            self.controller.learn(indices, evaluation)
        else:
            self.controller.learn(indices, evaluation, tuple(self.space.encode(parent.genotype)), parent.evaluation)
        kept = evaluation if self.inherit else replace(evaluation, state=None)
        self.population.append(Evaluated(candidate.genotype, kept))

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.getstate(),
            "asked": self.asked,
            "seen": sorted(self.seen),
            "population": pack(self.space, self.population),
            "controller": self.controller.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.asked = state["asked"]
        self.seen = {tuple(indices) for indices in state["seen"]}
        self.population = deque(unpack(self.space, state["population"]), maxlen=self.size)
        self.controller.load_state_dict(state["controller"])
