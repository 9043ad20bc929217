"""``search auto``: the whole search for a network, within one budget.

    probe    train the largest architecture of the space for one epoch; plan the rest from its time
    screen   rank candidates by training-free scores
    derive   train a supernet, derive further candidates from it by perturbation
    short    if none was derived: train the best candidates for a few epochs; train the best of these further
    full     train the finalists and the largest architecture
    random   baseline: fully train random architectures for as long as all of the above took
    result   the best network and the best ensemble, selected on the validation images

Every task is chosen by :func:`~automl_ext.nas.auto.plan.next_task` from the results so far. With several workers,
tasks of the same stage are done side by side. No training uses the validation images. The test images influence no
choice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, zip_longest
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.auto.derive import has_supernet
from automl_ext.nas.auto.plan import AutoConfig, Done, Task, next_task, pack_done, unpack_done
from automl_ext.nas.auto.result import summarize
from automl_ext.nas.auto.tasks import Job, Tasks
from automl_ext.nas.data import prepare
from automl_ext.nas.ensembles.network import member_path, save_member
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import complete, distinct
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.screening.screen import draw_candidates, screened
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.result import network_facts
from automl_ext.parallel.cluster import current_cluster
from automl_ext.parallel.jobs import Jobs
from automl_ext.training.epochs import Steps
from automl_ext.training.files.weights import read_tensors
from automl_ext.training.run import Run
from automl_ext.training.seeding import derived_seed

CANDIDATES, BASELINE = 1, 2  # random streams
VERSION = 2  # of the plan and the candidates that a checkpoint relies on
SAVE_EVERY = 2.0  # seconds between checkpoints; writing one takes as long as scoring an architecture


def auto(
    config: AutoConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Search for a network within ``config.minutes``.

    Args:
        config: the options.
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of steps after which to interrupt the run; a step is an epoch of a training, or the
            scores of one architecture.
        space: the search space; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.

    Returns:
        The contents of ``result.json``; see :func:`~automl_ext.nas.auto.result.summarize`. None if the run was
        interrupted. The plan depends on the speed of the machine, because the budget is a time.

    Raises:
        UserError: the data, the configuration or the run directory is invalid, or all trainings diverged.
    """
    space = space or spaces.space(config.space)
    config, splits = prepare(config, data)
    search = Auto(config, space, splits, Path(out))
    search.tasks.start(Task("probe", 0, search.largest, epochs=1))  # raises if the options do not fit the space
    with Run.open(out, config, algorithm="auto", resume=resume, load=search.load_state_dict) as run:
        apart = config.workers > 1 or current_cluster().address is not None
        if not (side_by_side if apart else one_by_one)(run, search, stop_after):
            return None
        result = {**summarize(splits, config.rounds, search.done), "network": network_facts(config, splits)}
        run.finish(result)
        return result


def one_by_one(run: Run, search: Auto, stop_after: int | None) -> bool:
    """Do the tasks in this process, with checkpoints inside of them. Return False if interrupted."""
    with Steps(
        run, 100, "search auto", stop_after, search.state_dict, every=SAVE_EVERY, percent=search.percent
    ) as steps:
        while (task := search.next_task()) is not None:
            job = search.job(task)
            while job.epoch < job.epochs:
                if steps.stopped:
                    return False
                steps.add(named(task, job.run_epoch()), description=search.description(task))
            search.finish(*search.tasks.finish(task, job))
    return True


def side_by_side(run: Run, search: Auto, stop_after: int | None) -> bool:
    """Do tasks that do not depend on each other in workers; save after each. Return False if interrupted."""
    with (
        Jobs(search.tasks.whole, search.config.workers, search.pending, search.arguments) as jobs,
        Steps(run, 100, "search auto", stop_after, search.state_dict, percent=search.percent) as steps,
    ):
        while not steps.stopped:
            jobs.fill(search.next_beside)
            if not search.pending:
                return True
            task, finished = jobs.next()
            search.finish(finished.done, finished.weights)
            steps.add(*(named(task, measured) for measured in finished.epochs), description=search.description(task))
    return False


class Auto:
    """The state of a search: the finished tasks and the job of the present one.

    Args:
        out: the run directory; weights are kept in its folder ``members``.
    """

    def __init__(self, config: AutoConfig, space: Space[Any], splits: Splits, out: Path) -> None:
        self.config, self.space, self.out = config, space, out
        self.largest = largest(space)
        self.supernet = has_supernet(space)
        rng = Random(derived_seed(config.seed, CANDIDATES))
        self.candidates = draw_candidates(space, config.candidates, rng, partial(complete, space))
        self.batches = math.ceil(len(splits.train.labels) / config.batch_size)
        self.tasks = Tasks(config, space, splits, self.candidates)
        self.random = Random(derived_seed(config.seed, BASELINE))
        self.drawn: list[Any] = []
        self.done: list[Done] = []
        self.task: Task | None = None
        self.current: Job | None = None  # of the present task, in this process
        self.pending: deque[Task] = deque()  # in work by workers
        self.job_state: dict[str, Any] | None = None  # of the first pending task, from a checkpoint

    def next_task(self) -> Task | None:
        return self.after(self.done, self.ranked)

    def after(self, done: Sequence[Done], ranked: Callable[[Sequence[Done]], list[Any]]) -> Task | None:
        """Return the task that follows on the tasks ``done``."""
        facts = self.batches, self.candidates, self.largest
        return next_task(self.config, *facts, ranked, self.draw, self.supernet, done)

    def next_beside(self) -> Task | None:
        """Return the next task if it can be done beside the pending ones, else None.

        It then has the stage and the rung of the pending ones, whose results it does not need. They are assumed to
        cost as much as the finished tasks of the stage.
        """
        if not self.pending:
            return self.next_task()
        last = self.pending[-1]
        if last.stage in ("probe", "derive"):
            return None
        costs = [d.seconds for d in self.done if (d.task.stage, d.task.rung) == (last.stage, last.rung)]
        cost = sum(costs) / len(costs) if costs else self.done[0].seconds * last.epochs
        assumed = [*self.done, *(Done(task, cost) for task in self.pending)]
        screens = last.stage == "screen"
        ranked = (lambda _: []) if screens else self.ranked  # a pending screening has no ranking yet
        found = self.after(assumed, ranked)
        return found if found is not None and (found.stage, found.rung) == (last.stage, last.rung) else None

    def ranked(self, done: Sequence[Done]) -> list[Any]:
        """Return the largest architecture, then derived and screened ones by turns, the best of each first.

        Of architectures that compute the same function, only the first is returned.
        """
        tables = [d.measured["table"] for d in done if d.task.stage == "screen"]
        columns = {name: torch.cat([t[name] for t in tables]).numpy() for name in (*RANK, "seconds")}
        seconds = columns.pop("seconds")
        table = ScoreTable(self.candidates[: len(seconds)], columns, seconds)
        best = [candidate.genotype for candidate in screened(table)]
        derived = [
            self.space.decode(indices) for d in done if d.task.stage == "derive" for indices in d.measured["genotypes"]
        ]
        unique = {distinct(self.space, self.largest): self.largest}
        for pair in zip_longest(derived, best):
            for genotype in pair:
                if genotype is not None:
                    unique.setdefault(distinct(self.space, genotype), genotype)
        return list(unique.values())

    def draw(self, number: int) -> Any:
        """Return the random architecture ``number`` of the baseline; as the candidates, without dead nodes."""
        while len(self.drawn) <= number:
            drawn = self.space.random(self.random)
            if complete(self.space, drawn):
                self.drawn.append(drawn)
        return self.drawn[number]

    def job(self, task: Task) -> Job:
        """Return the job of ``task``: the one that a checkpoint held, or a new one."""
        if self.current is None or self.task != task:
            self.task, self.current = task, self.tasks.start(task, self.weights(task))
        return self.current

    def weights(self, task: Task) -> dict[str, Tensor] | None:
        """Return the weights that the training of ``task`` starts from; None: random ones."""
        return None if task.start is None else read_tensors(member_path(self.out, task.start))

    def arguments(self, task: Task) -> tuple[Any, ...]:
        """Return the arguments of :meth:`Tasks.whole`: the state of an interrupted job is that of the first task."""
        state, self.job_state = self.job_state, None
        return task, self.weights(task), state

    def finish(self, done: Done, weights: dict[str, Tensor] | None) -> None:
        """Keep the results of a finished task, and the weights of its network."""
        if weights is not None and done.task.stage != "probe":
            save_member(self.out, done.task.number, weights)
        self.done.append(done)
        self.current = None

    def percent(self) -> int:
        """Return how much of the budget is spent, in percent: of the search and the random baseline together.

        The last training may exceed the budget, so the result is at most 99.
        """
        spent = sum(d.seconds for d in self.done) + (self.tasks.seconds(self.current) if self.current else 0.0)
        return min(int(100 * spent / (60 * self.config.minutes * (2 if self.config.baselines else 1))), 99)

    def description(self, task: Task) -> str:
        """Return the text beside the progress bar: where the search is, and the best result so far."""
        reached = max((d.valid_accuracy for d in self.done), default=-1.0)
        best = f", best validation accuracy {100 * reached:.1f} %" if reached >= 0 else ""
        return f"{task.stage}{best}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "done": [pack_done(d, self.space) for d in self.done],
            "job": None if self.current is None else self.current.state_dict(),
            "pending": [pack_done(Done(task, 0.0), self.space) for task in self.pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("version") != VERSION:  # the indices of its screenings are those of other candidates
            raise ValueError(
                f"version: expected {VERSION}, got {state.get('version')}: another version began this search"
            )
        self.done = [unpack_done(values, self.space) for values in state["done"]]
        pending = [unpack_done(values, self.space).task for values in state["pending"]]
        self.job_state, self.current = state["job"], None
        if self.job_state is not None:
            task = self.next_task()
            if task is None:
                raise ValueError("done: expected at least one task to be left")
            self.task, self.current = task, self.tasks.start(task, self.weights(task))
            self.current.load_state_dict(self.job_state)
            pending = [task]
        self.pending = deque(pending)


def named(task: Task, measured: dict[str, float]) -> dict[str, float]:
    """Return the measurements of an epoch by name, with the stage and the number of the task."""
    if task.stage == "derive":
        return measured
    if task.stage == "screen":
        return {"screen_architectures": task.chunk + measured["architectures"]}
    stage = "short" if task.stage == "probe" else task.stage
    return {f"{stage}{task.number}_{key}": value for key, value in measured.items()}


def largest(space: Space[Any], channels: int = 4) -> Any:
    """Return the architecture with the most parameters that coordinate ascent finds.

    The ascent starts from a random architecture. It sets one decision at a time to the choice with the most parameters,
    and ends when no change of a single decision adds parameters. In NAS-Bench-201 the result is a 3×3 convolution on
    every edge. The result does not depend on the data.

    Args:
        space: the search space.
        channels: number of channels of the networks that are counted.
    """

    def parameters(genotype: Any) -> int:
        with torch.device("meta"):
            network = space.build(genotype, in_channels=3, num_classes=10, channels=channels, cells=1)
        return sum(p.numel() for p in network.parameters())

    best = space.random(Random(0))
    size, decisions = parameters(best), len(space.num_choices)
    unchanged = 0  # number of decisions in a row without a better choice
    for decision in cycle(range(decisions)):
        if unchanged == decisions:
            break
        before = size
        for choice in space.legal(best, decision):
            indices = list(space.encode(best))
            if indices[decision] == choice:
                continue
            indices[decision] = choice
            other = space.decode(indices)
            if (count := parameters(other)) > size:
                best, size = other, count
        unchanged = unchanged + 1 if size == before else 0
    return best
