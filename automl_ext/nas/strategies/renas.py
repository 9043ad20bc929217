"""ReNAS: evolution whose mutations a controller chooses (Chen et al., CVPR 2019, "RENAS: Reinforced Evolutionary NAS").

    draw the first ``population`` candidates uniformly, or take the best screened ones, then repeat:
        parent = the best of ``sample`` members drawn with replacement
        child  = the parent with one decision changed, as the controller chooses
        the child inherits the parent's weights (changed layers are initialized) and is trained for a few epochs
        the controller learns from the child's score
        add the child to the population and remove the oldest member

The paper states neither the population size nor the tournament size, and the authors' code contains no search. The
sizes, the replacement of the oldest member and the rewards of the controllers are therefore choices of this package,
and so is that no architecture is proposed twice. Inheritance is implemented by the evaluator
(automl_ext.nas.estimators.inheritance); the evaluator "table" has no weights and ignores it. Inherited scores rise with
the generations, so the search ends with trainings from scratch (automl_ext.nas.search.search).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.evolution import Evolution, EvolutionConfig, warn_if_random
from automl_ext.nas.strategies.renas_controller import Change, Controller, HistoryController
from automl_ext.nas.strategies.renas_lstm import LSTMController
from automl_ext.nas.strategies.strategy import Candidate, Evaluated, Screened, tournament
from automl_ext.training.search_space import Range
from automl_ext.training.seeding import derived_seed

ControllerName = Literal["lstm", "history"]
# A function of (space, seed, screened candidates, whether children inherit weights). The LSTM of the paper does not use
# the ranks, and always learns from the score of a child minus that of its parent.
CONTROLLERS: dict[str, Callable[[Space[Any], int, Sequence[Screened], bool], Controller]] = {
    "lstm": lambda space, seed, screened, inherit: LSTMController(space, seed),
    "history": lambda space, seed, screened, inherit: HistoryController(
        space, seed, screened=screened, inherit=inherit
    ),
}

DRAWS = 1000  # largest number of draws until one is an architecture that was not proposed before


class ReNAS(Evolution):
    """ReNAS, a :class:`~automl_ext.nas.strategies.strategy.Strategy`.

    Args:
        controller: chooses the mutations and learns from the scores.
        population: number of members.
        sample: number of members that compete to be a parent.
        inherit: as in :class:`~automl_ext.nas.strategies.evolution.Evolution`.
        screened: candidates for the initial population, best first.

    Raises:
        ValueError: ``population`` or ``sample`` is below 1.
    """

    def __init__(
        self,
        space: Space[Any],
        seed: int,
        controller: Controller,
        population: int = 30,
        sample: int = 10,
        inherit: bool = False,
        screened: Sequence[Screened] = (),
    ) -> None:
        super().__init__(space, seed, population, sample, inherit, screened)
        self.controller = controller
        self.seen: set[tuple[int, ...]] = set()

    def ask(self) -> Candidate:
        self.asked += 1
        parent = None
        if self.asked > self.size and self.population:
            parent = tournament(self.population, self.sample, self.rng)
        changes = [] if parent is None else self.new_neighbors(parent.genotype)
        if parent is None or not changes:
            return self.candidate(self.unseen(), None)
        indices = list(self.space.encode(parent.genotype))
        decision, choice = self.controller.choose(tuple(indices), changes)
        indices[decision] = choice
        return self.candidate(self.space.decode(indices), parent)

    def candidate(self, genotype: Any, parent: Evaluated | None) -> Candidate:
        self.seen.add(tuple(self.space.encode(genotype)))
        return Candidate(genotype, parent=parent)

    def new_neighbors(self, genotype: Any) -> list[Change]:
        """Return the changes of one decision that lead to an architecture not proposed before."""
        indices = tuple(self.space.encode(genotype))
        changes = [(d, k) for d in range(len(indices)) for k in self.space.legal(genotype, d)]
        return [(d, k) for d, k in changes if (*indices[:d], k, *indices[d + 1 :]) not in self.seen]

    def unseen(self) -> Any:
        """Return the best screened architecture that is new, or draw uniformly among new ones.

        After ``DRAWS`` attempts the result may be a known one.
        """
        for candidate in self.screened:
            if tuple(self.space.encode(candidate.genotype)) not in self.seen:
                return candidate.genotype
        for _ in range(DRAWS):
            genotype = self.space.random(self.rng)
            if tuple(self.space.encode(genotype)) not in self.seen:
                break
        return genotype

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        parent = candidate.parent
        indices = tuple(self.space.encode(candidate.genotype))
        before = None if parent is None else (tuple(self.space.encode(parent.genotype)), parent.evaluation)
        self.controller.learn(indices, evaluation, before)
        super().tell(candidate, evaluation)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "seen": sorted(self.seen),
            "controller": self.controller.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen = {tuple(indices) for indices in state["seen"]}
        self.controller.load_state_dict(state["controller"])


@dataclass
class ReNASConfig(EvolutionConfig):
    """Configuration of ReNAS: evolution whose mutations a learned controller chooses (Chen et al. 2019)."""

    population: Annotated[int, Range(5, 100, log=True)] = 30
    """Number of members of the population; a new member replaces the oldest."""
    sample: Annotated[int, Range(2, 20)] = 10  # Number of members that compete to be a parent.
    inherit: bool = True  # Children inherit the weights of their parents. Evaluator "train" only.
    controller: ControllerName = "lstm"  # The paper's LSTM with REINFORCE, or ridge regression on all scores (history).

    def strategy(self, space: Space[Any], screened: Sequence[Screened] = ()) -> ReNAS:
        warn_if_random(self, self.population)
        controller = CONTROLLERS[self.controller](space, derived_seed(self.seed, 1), screened, self.inherits)
        return ReNAS(space, self.seed, controller, self.population, self.sample, self.inherits, screened)
