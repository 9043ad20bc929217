"""A search with a strategy: it proposes architectures, which are evaluated until the budget is spent.

    with --screen: score candidates without training; the strategy starts from the best
    until the budget, without the part for the final trainings, is spent:
        keep ``workers`` candidates of the strategy in evaluation
        wait for the result of the oldest candidate;  stop if its cost exceeds the budget
        tell the strategy the result, log it, save a checkpoint
    if the evaluator trains networks: train the best ``finalists`` from scratch, equally long; the best is the result

With more workers, a strategy proposes before it knows the latest results, so the result depends on the number of
workers. It does not depend on the speed of each worker.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from automl_ext.nas.data import own_data
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.screening.screen import Screening, prepare_screening
from automl_ext.nas.search.evaluators import scoring
from automl_ext.nas.search.history import COSTS, Entry, History
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.search_options import ScreenedSearchConfig, SearchConfig
from automl_ext.nas.strategies.strategy import Candidate, pack, unpack
from automl_ext.parallel.cluster import current_cluster
from automl_ext.parallel.jobs import Jobs
from automl_ext.training.epochs import Epochs, Steps
from automl_ext.training.errors import UserError
from automl_ext.training.machine.clock import Clock
from automl_ext.training.machine.device import choose_device
from automl_ext.training.run import Run

SAVE_EVERY = 2.0  # seconds between checkpoints; one takes longer than a lookup in a table
Evaluate = Callable[..., Evaluation]  # see automl_ext.nas.evaluation.Evaluator


def search(
    name: str,
    config: SearchConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Search with the strategy that ``config`` defines.

    Args:
        name: name of the algorithm; a resumed run must have the same.
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of steps after which to interrupt the run; a step is an evaluation, an epoch of a
            supernet, or a checkpoint of a screening.
        space: the search space; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.

    Returns:
        The content of ``result.json``: ``genotype``, ``score`` and further measurements of the best architecture within
        the limits on its costs, ``evaluations`` and ``failed`` (counts, with the final trainings), ``finalists`` (each
        architecture that was trained again, with its ``search_score`` in the search and its ``score`` in the final
        training), ``pareto`` (the Pareto front of costs and scores in the search, among the evaluations with the budget
        of the best one) and ``times``. None if the search was interrupted. A budget in measured seconds, or a measured
        latency, makes the result depend on the speed of the machine.

    Raises:
        UserError: the data, table, configuration or run directory is invalid, the budget is too small for one
            evaluation, or all architectures failed.
    """
    space = space or spaces.space(config.space)
    config, images = own_data(config.resolved(), data)
    # Before the run directory exists, because it raises an error for invalid options.
    make_evaluator, make_final, job = scoring(config, space, images)
    screening = prepare_screening(config, space, images)
    screen_job = screening.job if screening else None
    first_step = (screen_job.epochs if screen_job else 0) + (job.epochs if job else 0)
    search_state: dict[str, Any] | None = None

    def job_seconds() -> float:
        return float(job.clock.budget(choose_device(config.device)))

    def check_budget() -> None:
        assert job is not None
        seconds, most = job_seconds(), config.limits()[1]
        if seconds > most:
            raise UserError(
                f"budget: {job.epoch} of {job.epochs} epochs of the {config.evaluator} took {seconds:.3g} s, more than "
                f"{most:g} s; take more seconds or fewer --epochs"
            )

    def load(state: dict[str, Any]) -> None:
        nonlocal search_state
        screens = state.get("screens", False)  # the checkpoint was written during the screening
        if screen_job is not None:
            screen_job.load_state_dict(state["job"] if screens else state["screening"])
        if job is not None and not screens:
            job.load_state_dict(state["job"])
        search_state = state["search"]
        if search_state is not None:  # raises here if the checkpoint is damaged
            Search(name, config, space, first_step, screening).load_state_dict(search_state)

    with Run.open(out, config, algorithm=name, resume=resume, load=load) as run:
        states: dict[str, Any] = {"search": None}
        if first_step:
            with Epochs(run, first_step, config.evaluator, stop_after) as epochs:
                if screen_job is not None:
                    if not epochs.run(screen_job, "screening", {**states, "screens": True}):
                        return None
                    states["screening"] = screen_job.state_dict()
                if job is not None and not epochs.run(job, config.evaluator, states, check_budget):
                    return None
        done = Search(name, config, space, first_step, screening, job_seconds() if job else None)
        if search_state is not None:
            done.load_state_dict(search_state)
        done.before = {**states, "job": job.state_dict() if job else None}
        if done.finalists is None:
            if not done.search(run, stop_after, make_evaluator().evaluate):
                return None
            done.choose_finalists()
        if done.finalists:
            assert make_final is not None  # evaluators with finalists have one
            if not done.train_finalists(run, stop_after, make_final().evaluate):
                return None
        result = done.result()
        run.finish(result)
        return result


class Search:
    """The state of a search: the strategy, the results so far, and the candidates in evaluation.

    Args:
        first_step: number of epochs of the jobs that precede the search; 0 without one.
        screening: the finished screening, or None.
        supernet_seconds: cost of the training of the supernet; None: there is none.
    """

    before: dict[str, Any]  # the final states of the jobs before the search, part of every checkpoint

    def __init__(
        self,
        name: str,
        config: SearchConfig,
        space: Space[Any],
        first_step: int,
        screening: Screening | None,
        supernet_seconds: float | None = None,
    ) -> None:
        self.name, self.config, self.space, self.first_step = name, config, space, first_step
        self.seconds_before: dict[str, float] = {}  # cost of what precedes the evaluations, by name in the result
        if supernet_seconds is not None:
            self.seconds_before["supernet_seconds"] = supernet_seconds
        if screening is not None and isinstance(config, ScreenedSearchConfig):
            candidates, self.seconds_before["screening_seconds"] = screening.outcome()
            self.strategy = config.strategy(space, candidates)
        else:
            self.strategy = config.strategy(space)
        self.history = History(space, sum(self.seconds_before.values()))
        self.pending: deque[Candidate] = deque()
        self.finalists: list[Entry] | None = None  # None: the strategy has not finished
        self.finals: list[Evaluation] = []  # results of the final trainings so far
        self.clock = Clock()

    @property
    def step(self) -> int:
        return self.first_step + len(self.history) + len(self.finals)

    @property
    def seconds(self) -> float:
        """Cost of the screening, of the supernet, of all evaluations and of the final trainings."""
        return self.history.seconds + sum(final.cost for final in self.finals)

    def search(self, run: Run, stop_after: int | None, evaluate: Evaluate) -> bool:
        """Evaluate candidates of the strategy. Return False if the search was interrupted."""
        evaluations = self.config.limits()[0]
        known = 0 if math.isinf(evaluations) else int(evaluations) - self.final_trainings()[0]
        total = self.first_step + known if known > 0 else 0
        jobs = Jobs(evaluate, self.config.workers, self.pending, arguments)
        steps = Steps(run, total, self.name, stop_after, self.checkpoint, every=SAVE_EVERY, start=self.step)
        return self.run(jobs, steps, self.ask, self.tell)

    def train_finalists(self, run: Run, stop_after: int | None, evaluate: Evaluate) -> bool:
        """Train the finalists from scratch. Return False if the search was interrupted."""
        assert self.finalists is not None
        left = deque((self.space.decode(entry.indices),) for entry in self.finalists[len(self.finals) :])
        total, start = self.step + len(left), self.step
        jobs = Jobs(evaluate, self.config.workers, left)
        steps = Steps(run, total, "final trainings", stop_after, self.checkpoint, every=SAVE_EVERY, start=start)
        return self.run(jobs, steps, lambda: None, self.tell_final)

    def run(
        self,
        jobs: Jobs[Any, Evaluation],
        steps: Steps,
        ask: Callable[[], Any],
        tell: Callable[[Any, Evaluation], dict[str, float] | None],
    ) -> bool:
        """Evaluate the tasks of ``ask`` until ``tell`` returns None. Return False if interrupted."""
        with jobs, steps:
            while not steps.stopped:
                with self.clock:
                    jobs.fill(ask)
                    line = tell(*jobs.next()) if jobs.pending else None
                if line is None:
                    steps.save()
                    return True
                steps.add(line)
        return False

    def ask(self) -> Candidate | None:
        """Return the next candidate; None: the budget is used up, or the strategy waits for results or has ended."""
        evaluations = self.config.limits()[0] - self.final_trainings()[0]
        return self.strategy.ask() if len(self.history) + len(self.pending) < evaluations else None

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> dict[str, float] | None:
        """Process an evaluation. Return the scalars to log; None: it exceeds the budget, which ends the search."""
        seconds = self.config.limits()[1]
        number, cost = self.final_trainings()
        if self.seconds + evaluation.cost > seconds - number * cost:
            if len(self.history) == 0:
                left = max(seconds - self.history.seconds, 0.0)
                before = [name.removesuffix("_seconds") for name in self.seconds_before]
                after = f" after {' and '.join(before)}" if before else ""
                raise UserError(f"budget: one evaluation takes {evaluation.cost:.1f} s, more than {left:g} s{after}")
            self.pending.appendleft(candidate)  # a checkpoint has it in flight
            return None
        self.strategy.tell(candidate, evaluation)
        self.history.add(candidate, evaluation)
        return self.history.scalars()

    def tell_final(self, task: Any, final: Evaluation) -> dict[str, float] | None:
        """Record a final training. Return the scalars to log; None: it exceeds the budget, and does not count."""
        if self.seconds + final.cost > self.config.limits()[1]:
            return None
        self.finals.append(replace(final, state=None))
        return {"final_score": final.score, "cost": final.cost, "seconds": self.seconds}

    def final_trainings(self) -> tuple[int, float]:
        """Return the number of final trainings that the budget allows, and the largest cost of one in seconds."""
        number, seconds = self.config.final_trainings(), self.config.limits()[1]
        if number == 0:
            return 0, 0.0
        epochs = self.config.training_epochs
        costs = [e.cost * epochs / (e.measured.get("epochs") or epochs) for e in self.history.entries if not e.failed]
        cost = max(costs, default=0.0)
        return int(min(number, seconds / (4 * cost))) if cost else number, cost

    def choose_finalists(self) -> None:
        """Choose the architectures to train from scratch; none if all candidates failed."""
        number = self.final_trainings()[0] if self.history.best else 0
        self.finalists = self.history.choose(self.config.cost_limits(), number) if number else []

    def checkpoint(self) -> dict[str, Any]:
        """Return the state of the run."""
        return {**self.before, "search": self.state_dict()}

    def result(self) -> dict[str, Any]:
        """Return the content of ``result.json``."""
        if self.history.best is None:
            raise UserError(f"{self.name}: all {len(self.history)} candidates failed; try a lower learning rate")
        best, score, measured = self.best()
        apart = self.config.workers > 1 or current_cluster().address is not None
        finalists = {"finalists": self.final_scores()} if self.finals else {}
        return {
            "genotype": str(self.space.decode(best.indices)),
            "score": score,
            **measured,
            "evaluations": len(self.history) + len(self.finals),
            "failed": self.history.failed + sum(final.failed for final in self.finals),
            **finalists,
            "pareto": self.history.pareto(best.budget),
            "times": {
                # Simulated with a table.
                "evaluation_seconds": self.seconds - sum(self.seconds_before.values()),
                **self.seconds_before,
                "search_seconds": self.clock.wall,
                # The clock measures this process only, which does not train if there are workers.
                **({} if apart else {"search_cpu_seconds": self.clock.cpu}),
            },
        }

    def best(self) -> tuple[Entry, float, dict[str, float]]:
        """Return the best architecture's evaluation in the search, its final score, and its measurements."""
        trained = [(e, f) for e, f in zip(self.finalists or [], self.finals, strict=False) if not f.failed]
        if not trained:
            best = self.history.choose(self.config.cost_limits())[0]
            return best, best.score, best.measured
        best, final = max(trained, key=lambda pair: pair[1].score)
        costs = {name: value for name, value in best.measured.items() if name in COSTS}
        return best, final.score, final.measured | costs

    def final_scores(self) -> list[dict[str, Any]]:
        """Return the architecture, the score in the search and the final score of each finalist that was trained."""
        return [
            {"genotype": str(self.space.decode(e.indices)), "search_score": e.score, "score": f.score}
            for e, f in zip(self.finalists or [], self.finals, strict=False)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.state_dict(),
            "history": self.history.state_dict(),
            "pending": [
                (self.space.encode(c.genotype), c.budget, pack(self.space, [c.parent] if c.parent else []))
                for c in self.pending
            ],
            "finalists": None if self.finalists is None else [tuple(entry) for entry in self.finalists],
            "finals": [dict(vars(final)) for final in self.finals],
            "wall": self.clock.wall,
            "cpu": self.clock.cpu,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strategy.load_state_dict(state["strategy"])
        self.history.load_state_dict(state["history"])
        for indices, budget, packed in state["pending"]:
            parent = next(iter(unpack(self.space, packed)), None)
            self.pending.append(Candidate(self.space.decode(indices), budget, parent))
        self.finalists = None if state["finalists"] is None else [Entry(*entry) for entry in state["finalists"]]
        self.finals = [Evaluation(**fields) for fields in state["finals"]]
        self.clock.wall, self.clock.cpu = state["wall"], state["cpu"]


def arguments(candidate: Candidate) -> tuple[Any, ...]:
    """Return the arguments of the evaluation of a candidate; the last one is the state of its parent."""
    return candidate.genotype, candidate.budget, candidate.parent.evaluation.state if candidate.parent else None
