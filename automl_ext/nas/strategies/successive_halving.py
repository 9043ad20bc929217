"""Successive halving (Jamieson & Talwalkar, AISTATS 2016).

repeat until the search ends (one bracket):
    draw ``candidates`` architectures uniformly; screened ones come first, best first
    for budget in ``budgets`` (one rung):
        train the remaining architectures up to the budget and keep the best 1/eta
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.search_options import HALVING, ScreenedSearchConfig
from automl_ext.nas.strategies.strategy import (
    Candidate,
    Evaluated,
    Screened,
    at_least,
    pack,
    set_rng,
    starting,
    unpack,
)
from automl_ext.nas.training.training_options import LARGEST, MANY
from automl_ext.training.checks import check_range


class SuccessiveHalving:
    """Successive halving, a :class:`~automl_ext.nas.strategies.strategy.Strategy`.

    Args:
        candidates: number of candidates in the first rung of a bracket.
        budgets: increasing numbers of epochs since the start of the training, one per rung. The training of a promoted
            candidate continues if the evaluator returns a state.
        eta: one in ``eta`` candidates of a rung is promoted (at least one).
        screened: candidates for the first rungs, best first.

    Raises:
        ValueError: ``candidates`` is below 1, ``budgets`` do not increase from at least 1, or ``eta`` is below 2.
    """

    def __init__(
        self,
        space: Space[Any],
        seed: int,
        candidates: int = 27,
        budgets: Sequence[int] = (1, 3, 9),
        eta: int = 3,
        screened: Sequence[Screened] = (),
    ) -> None:
        at_least("candidates", candidates, 1)
        at_least("eta", eta, 2)
        if not budgets or list(budgets) != sorted({*budgets}) or budgets[0] < 1:
            raise ValueError(f"budgets: expected increasing numbers of epochs, at least 1, got {tuple(budgets)}")
        self.space, self.rng = space, Random(seed)
        self.candidates, self.budgets, self.eta = candidates, tuple(budgets), eta
        self.screened, self.started = screened, 0  # started: number of candidates proposed in first rungs
        self.rung = -1  # index into budgets; −1 before the first rung
        # Candidates of the rung that are not proposed yet: promoted ones, or None for one to draw.
        self.waiting: deque[Evaluated | None] = deque()
        self.out = 0  # number of candidates in evaluation
        self.results: list[Evaluated] = []

    def ask(self) -> Candidate | None:
        if not self.waiting:
            if self.out:
                return None
            self.next_rung()
        parent = self.waiting.popleft()
        self.out += 1
        if parent is not None:
            return Candidate(parent.genotype, self.budgets[self.rung], parent)
        self.started += 1
        genotype = starting(self.space, self.rng, self.screened, self.started - 1)
        return Candidate(genotype, self.budgets[self.rung])

    def next_rung(self) -> None:
        """Queue the promoted candidates of the next rung, or the candidates of a new bracket."""
        alive = [member for member in self.results if not member.evaluation.failed]
        # The sort is stable: of equal scores the earlier candidates come first.
        alive.sort(key=lambda member: -member.evaluation.score)
        self.rung = (self.rung + 1) % len(self.budgets) if alive else 0
        keep = max(len(self.results) // self.eta, 1)
        self.waiting = deque([None] * self.candidates if self.rung == 0 else alive[:keep])
        self.results = []

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        self.out -= 1
        self.results.append(Evaluated(candidate.genotype, evaluation))

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.getstate(),
            "started": self.started,
            "rung": self.rung,
            "out": self.out,
            "to_draw": sum(member is None for member in self.waiting),
            "survivors": pack(self.space, [member for member in self.waiting if member is not None]),
            "results": pack(self.space, self.results),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.started = state["started"]
        self.rung, self.out = state["rung"], state["out"]
        self.waiting = deque([None] * state["to_draw"] + [*unpack(self.space, state["survivors"])])
        self.results = unpack(self.space, state["results"])


@dataclass
class SuccessiveHalvingConfig(ScreenedSearchConfig):
    """Configuration of successive halving (Jamieson & Talwalkar 2016).

    Many candidates are trained briefly, and the best of them longer.
    """

    epochs: int = 9  # Epochs of the last rung. With a table there are two rungs, of 12 and 200 epochs.
    candidates: int = 27  # Number of candidates in the first rung.
    eta: int = 3  # One in eta candidates is promoted to the next rung, which has eta times the epochs.
    rungs: int = 3  # Number of rungs.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "candidates", low=1, high=MANY)
        check_range(self, "eta", low=2, high=LARGEST)
        check_range(self, "rungs", low=1, high=30)  # eta ** rungs must not overflow a count
        if self.evaluator in ("supernet", *HALVING):
            raise ValueError(f"evaluator: successive halving needs budgets, which {self.evaluator} does not support")
        if self.evaluator == "train" and self.epochs < self.eta ** (self.rungs - 1):
            raise ValueError(
                f"epochs: expected at least {self.eta ** (self.rungs - 1)}, for one epoch in the first rung, "
                f"got {self.epochs}"
            )

    def strategy(self, space: Space[Any], screened: Sequence[Screened] = ()) -> SuccessiveHalving:
        rising = [self.epochs // self.eta**k for k in reversed(range(self.rungs))]
        budgets = [12, 200] if self.evaluator == "table" else rising
        return SuccessiveHalving(space, self.seed, self.candidates, budgets, self.eta, screened)
