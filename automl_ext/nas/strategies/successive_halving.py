"""Successive halving (Jamieson & Talwalkar, AISTATS 2016).

    draw ``candidates`` architectures uniformly;  for budget in ``budgets``:
        train all that are left until the budget;  the best 1/eta of them stay

and again from the start, for as long as there is time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Candidate, Evaluated, at_least, pack, set_rng, unpack


class SuccessiveHalving:
    """A :class:`~automl_ext.nas.strategies.strategy.Strategy`.

    Args:
        candidates: of a bracket's first rung.
        budgets: epochs since the start of a training, rising: one per rung. A survivor's training goes on where the
            evaluator gives back a state.
        eta: of a rung, one in ``eta`` goes on (at least one).

    Raises:
        ValueError: no candidates, budgets that do not rise from 1 or more, eta below 2.
    """

    def __init__(
        self, space: Space[Any], seed: int, candidates: int = 27, budgets: Sequence[int] = (1, 3, 9), eta: int = 3
    ) -> None:
        at_least("candidates", candidates, 1)
        at_least("eta", eta, 2)
        if not budgets or list(budgets) != sorted({*budgets}) or budgets[0] < 1:
            raise ValueError(f"budgets: expected rising numbers of epochs from 1, got {tuple(budgets)}")
        self.space, self.rng = space, Random(seed)
        self.candidates, self.budgets, self.eta = candidates, tuple(budgets), eta
        self.rung = -1  # of the budgets, the one that is being evaluated
        self.waiting: deque[Evaluated | None] = deque()  # not asked for yet: survivors, or None: to be drawn
        self.out = 0  # asked for, not told yet
        self.results: list[Evaluated] = []

    def ask(self) -> Candidate | None:
        if not self.waiting:
            if self.out:
                return None
            self.next_rung()
        parent = self.waiting.popleft()
        self.out += 1
        genotype = self.space.random(self.rng) if parent is None else parent.genotype
        return Candidate(genotype, self.budgets[self.rung], parent)

    def next_rung(self) -> None:
        """Those who go on to the next budget, or the candidates of a new bracket."""
        alive = [member for member in self.results if not member.evaluation.failed]
        alive.sort(key=lambda member: -member.evaluation.score)  # stable: of equals the earlier ones
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
            "rung": self.rung,
            "out": self.out,
            "to_draw": sum(member is None for member in self.waiting),
            "survivors": pack(self.space, [member for member in self.waiting if member is not None]),
            "results": pack(self.space, self.results),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.rung, self.out = state["rung"], state["out"]
        self.waiting = deque([None] * state["to_draw"] + [*unpack(self.space, state["survivors"])])
        self.results = unpack(self.space, state["results"])
