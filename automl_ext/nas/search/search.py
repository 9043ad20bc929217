"""A search by a strategy: architectures are asked for, evaluated, told of, until the budget is spent.

    while there is budget:
        keep ``workers`` candidates of the strategy in evaluation
        take the result of the oldest;  stop if its cost overruns the budget
        tell the strategy, log, save

With more workers a strategy proposes before it has seen the last results, so another number of workers is another
search; which worker is faster changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.search.config import SearchConfig
from automl_ext.nas.search.evaluators import evaluator_of, splits_of, supernet_of, train_supernet, weight_sharing
from automl_ext.nas.search.history import History
from automl_ext.nas.spaces.registry import space as space_called
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Candidate, pack, unpack
from automl_ext.parallel.workers import Workers
from automl_ext.training.clock import Clock
from automl_ext.training.errors import UserError
from automl_ext.training.run import Run

SAVE_EVERY = 2.0  # seconds: a look into a table takes less than a checkpoint


def search(
    name: str,
    config: SearchConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
) -> dict[str, Any] | None:
    """Search with the strategy that ``config`` makes, in the run directory ``out``.

    Args:
        name: the algorithm's, which a resumed run must have too.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after so many evaluations (epochs of a supernet among them).
        space: a space of your own, instead of the one that ``config.space`` names.

    Returns:
        What ``result.json`` holds: genotype, score and what else was measured of the best architecture, the numbers of
        evaluations and of failed ones, pareto (score against parameters) and times. None when stopped. A search whose
        budget is in measured seconds is as reproducible as these.

    Raises:
        UserError: bad data, table, configuration or run directory, a budget too small for one evaluation, no
            architecture that did not fail.
    """
    space = space or space_called(config.space)
    splits = splits_of(config)
    # Before there is a directory: a space may have no supernet, a budget be too small for the table.
    supernet = supernet_of(config, space, splits) if config.evaluator == "supernet" and splits else None
    evaluator = None if supernet else evaluator_of(config, space, splits)
    first_step = config.epochs if supernet else 0
    done = Search(name, config, space, first_step)

    def load(state: dict[str, Any]) -> None:
        nonlocal done
        if supernet is not None:
            supernet.load_state_dict(state["job"])
        done = Search(name, config, space, first_step)  # a new one: the attempt before may have stopped half way
        if state["search"] is not None:
            done.load_state_dict(state["search"])

    with Run.open(out, config, algorithm=name, resume=resume, load=load) as run:
        done.directory, done.saved = run, run.step
        if evaluator is None:
            assert supernet is not None
            assert splits is not None
            if not train_supernet(supernet, run, stop_after):
                return None
            done.saved = max(run.step, first_step)  # the supernet's last epoch has been saved
            done.job, evaluator = supernet.state_dict(), weight_sharing(supernet, space, splits)
        with Workers(evaluator.evaluate, config.workers) as workers:
            if not done.run(workers, stop_after):
                return None
        result = done.result()
        run.finish(result)
        return result


class Search:
    """The strategy, its results so far, and the candidates that are being evaluated.

    Args:
        first_step: the number of epochs of a supernet's training, which come first.
    """

    directory: Run
    saved: int  # the step of the last checkpoint
    job: dict[str, Any] | None = None  # the state of a supernet, saved along

    def __init__(self, name: str, config: SearchConfig, space: Space[Any], first_step: int) -> None:
        self.name, self.config, self.space, self.first_step = name, config, space, first_step
        self.strategy = config.strategy(space)
        self.history = History(space)
        self.pending: deque[Candidate] = deque()
        self.clock = Clock()

    @property
    def step(self) -> int:
        return self.first_step + len(self.history)

    def run(self, workers: Workers[Evaluation], stop_after: int | None) -> bool:
        """Search on; False when stopped before the end."""
        for candidate in self.pending:  # of the interrupted run
            submit(workers, candidate)
        stop_at = None if stop_after is None else self.directory.step + stop_after
        saved_at = time.monotonic()
        with self.directory.progress(self.config.evaluations or 0, self.name) as bar:
            while self.step != stop_at:
                with self.clock:
                    done = self.evaluate_next(workers)
                if done:
                    return True
                self.directory.log(self.step, **self.history.scalars())
                bar.advance()
                if time.monotonic() - saved_at >= SAVE_EVERY:
                    self.save()
                    saved_at = time.monotonic()
        self.save()
        return False

    def evaluate_next(self, workers: Workers[Evaluation]) -> bool:
        """One evaluation; True when there is no more to do."""
        evaluations, seconds = self.config.limits()
        while len(self.pending) < self.config.workers and len(self.history) + len(self.pending) < evaluations:
            candidate = self.strategy.ask()
            if candidate is None:
                break
            self.pending.append(candidate)
            submit(workers, candidate)
        if not self.pending:
            return True
        evaluation = workers.next()
        if self.history.seconds + evaluation.cost > seconds:
            if len(self.history) == 0:
                raise UserError(f"budget: one evaluation takes {evaluation.cost:.1f} s, more than {seconds:g} s")
            return True
        candidate = self.pending.popleft()
        self.strategy.tell(candidate, evaluation)
        self.history.add(candidate, evaluation)
        return False

    def save(self) -> None:
        if self.step > self.saved:
            self.directory.save(self.step, {"job": self.job, "search": self.state_dict()})
            self.saved = self.step

    def result(self) -> dict[str, Any]:
        best = self.history.best
        if best is None:
            raise UserError(f"{self.name}: all {len(self.history)} candidates failed; try a lower learning rate")
        return {
            "genotype": str(self.space.decode(best.indices)),
            "score": best.score,
            **best.measured,
            "evaluations": len(self.history),
            "failed": self.history.failed,
            "pareto": self.history.pareto(),
            "times": {
                "evaluation_seconds": self.history.seconds,  # simulated, where scores are looked up
                "search_seconds": self.clock.wall,
                "search_cpu_seconds": self.clock.cpu,  # of this process
            },
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.state_dict(),
            "history": self.history.state_dict(),
            "pending": [
                (self.space.encode(c.genotype), c.budget, pack(self.space, [c.parent] if c.parent else []))
                for c in self.pending
            ],
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strategy.load_state_dict(state["strategy"])
        self.history.load_state_dict(state["history"])
        for indices, budget, packed in state["pending"]:
            parent = next(iter(unpack(self.space, packed)), None)
            self.pending.append(Candidate(self.space.decode(indices), budget, parent))
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def submit(workers: Workers[Evaluation], candidate: Candidate) -> None:
    state = candidate.parent.evaluation.state if candidate.parent else None
    workers.submit(candidate.genotype, candidate.budget, state)
