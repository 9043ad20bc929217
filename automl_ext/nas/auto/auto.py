"""``search auto``: the whole search for a network, within one budget.

    probe    train the largest architecture of the space for one epoch; plan the rest from its time
    screen   rank candidates by training-free scores
    short    train the best candidates for a few epochs; train the best of these further, from their weights
    full     train the finalists and the largest architecture
    random   baseline: fully train random architectures for as long as all of the above took
    result   the best network and the best ensemble, selected on the validation images

Every task is chosen by :func:`~automl_ext.nas.auto.plan.next_task` from the results so far. No training uses the
validation images. The test images influence no choice.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from automl_ext.data.images import Splits
from automl_ext.nas.auto.config import AutoConfig
from automl_ext.nas.auto.largest import largest
from automl_ext.nas.auto.plan import CHUNK, Done, Task, next_task
from automl_ext.nas.auto.result import summarize
from automl_ext.nas.auto.state import pack_done, unpack_done
from automl_ext.nas.data import prepare
from automl_ext.nas.ensembles.ensemble import log_probabilities
from automl_ext.nas.ensembles.network import member_path, save_member
from automl_ext.nas.estimators.lower_fidelity import all_finite, finite_logits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.retraining.images import accuracy, to_device, without_validation
from automl_ext.nas.retraining.training import NetworkTraining, count_parameters, network_facts
from automl_ext.nas.screening.score_job import ScoreJob, distinct
from automl_ext.nas.screening.screen import draw_candidates, screened
from automl_ext.nas.screening.table import ScoreTable
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.training.device import choose_device
from automl_ext.training.files.weights import check_fit, read_tensors
from automl_ext.training.run import Run
from automl_ext.training.seeding import derived_seed

CANDIDATES, BASELINE = 1, 2  # random streams
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
    search.start(Task("probe", 0, search.largest, epochs=1))  # raises if the options do not fit the space
    with Run.open(out, config, algorithm="auto", resume=resume, load=search.load_state_dict) as run:
        stop_at = None if stop_after is None else run.step + stop_after
        step, saved_at = run.step, time.monotonic()
        shown = search.percent()
        with run.progress(100, "search auto", shown, percent=True) as bar:
            while (task := search.next_task()) is not None:
                job = search.job(task)
                while job.epoch < job.epochs:
                    if step == stop_at:
                        return None
                    measured = job.run_epoch()
                    step += 1
                    run.log(step, **named(task, measured))
                    if step == stop_at or time.monotonic() - saved_at >= SAVE_EVERY:
                        run.save(step, search.state_dict())
                        saved_at = time.monotonic()
                    bar.advance(search.percent() - shown, description=search.description(task))
                    shown = search.percent()
                search.finish(task)
        result = {**summarize(splits, config.rounds, search.done), "network": network_facts(config, splits)}
        run.finish(result)
        return result


class Auto:
    """The state of a search: the finished tasks and the job of the present one.

    Args:
        out: the run directory; weights are kept in its folder ``members``.
    """

    def __init__(self, config: AutoConfig, space: Space[Any], splits: Splits, out: Path) -> None:
        self.config, self.space, self.out = config, space, out
        self.splits, self.device = splits, choose_device(config.device)
        self.training_splits = without_validation(splits)
        self.largest = largest(space)
        self.candidates = draw_candidates(space, config.candidates, Random(derived_seed(config.seed, CANDIDATES)))
        self.random = Random(derived_seed(config.seed, BASELINE))
        self.drawn: list[Any] = []
        self.done: list[Done] = []
        self.task: Task | None = None
        self.current: ScoreJob | NetworkTraining | None = None

    def next_task(self) -> Task | None:
        return next_task(self.config, self.candidates, self.largest, self.ranked, self.draw, self.done)

    def ranked(self, screenings: Sequence[Done]) -> list[Any]:
        """Return the largest architecture and the screened ones, the best first.

        Of architectures that compute the same function, only the first is returned.
        """
        tables = [d.measured["table"] for d in screenings]
        columns = {name: torch.cat([t[name] for t in tables]).numpy() for name in (*RANK, "seconds")}
        seconds = columns.pop("seconds")
        unique = {distinct(self.space, self.largest): self.largest}
        for candidate in screened(ScoreTable(self.candidates[: len(seconds)], columns, seconds)):
            unique.setdefault(distinct(self.space, candidate.genotype), candidate.genotype)
        return list(unique.values())

    def draw(self, number: int) -> Any:
        """Return the random architecture ``number`` of the baseline."""
        while len(self.drawn) <= number:
            self.drawn.append(self.space.random(self.random))
        return self.drawn[number]

    def job(self, task: Task) -> ScoreJob | NetworkTraining:
        """Return the job of ``task``: the one that a checkpoint held, or a new one."""
        if self.current is None or self.task != task:
            self.task, self.current = task, self.start(task)
        return self.current

    def start(self, task: Task) -> ScoreJob | NetworkTraining:
        """Create the job of ``task``."""
        if task.stage == "screen":
            chunk = self.candidates[task.chunk : task.chunk + CHUNK]
            return ScoreJob(self.space, chunk, self.splits, self.device, RANK, seed=self.config.seed)
        seeded = dataclasses.replace(
            self.config, epochs=task.epochs, seed=derived_seed(self.config.seed, 1000 + task.number)
        )
        training = NetworkTraining(seeded, self.space, task.genotype, self.training_splits, self.device)
        if task.start is not None:
            path = member_path(self.out, task.start)
            weights = read_tensors(path)
            check_fit(weights, training.network.state_dict(), str(path))
            training.network.load_state_dict(weights)
        return training

    def finish(self, task: Task) -> None:
        """Measure the finished job of ``task`` and keep the results."""
        job = self.current
        self.done.append(self.screening(task, job) if isinstance(job, ScoreJob) else self.trained(task, job))
        self.current = None

    def screening(self, task: Task, job: ScoreJob) -> Done:
        table = job.table()
        columns = {name: torch.from_numpy(values) for name, values in table.scores.items()}
        return Done(task, job.seconds, measured={"table": {**columns, "seconds": torch.from_numpy(table.seconds)}})

    def trained(self, task: Task, training: Any) -> Done:
        """Measure the validation accuracy of a training; after a full training, also its predictions."""
        with training.clock:
            valid = to_device(self.splits.valid, self.device)
            network = training.network
            failed = not all_finite(network) or not finite_logits(network, valid.images[:1])
            score = -1.0 if failed else accuracy(network, valid)
        measured: dict[str, Any] = {"parameters": count_parameters(network)}
        if task.stage in ("full", "random") and not failed:
            measured["valid"] = log_probabilities(network, self.splits.valid)
            measured["test"] = log_probabilities(network, self.splits.test)
        if task.stage != "probe":
            save_member(self.out, task.number, network)
        return Done(task, self.seconds(training), score, measured)

    def percent(self) -> int:
        """Return how much of the budget is spent, in percent: of the search and the random baseline together.

        The last training may exceed the budget, so the result is at most 99.
        """
        spent = sum(d.seconds for d in self.done) + (self.seconds(self.current) if self.current else 0.0)
        return min(int(100 * spent / (60 * self.config.minutes * (2 if self.config.baselines else 1))), 99)

    def seconds(self, job: ScoreJob | NetworkTraining) -> float:
        """Return the cost of a job: CPU-seconds on a CPU, seconds on a GPU."""
        if isinstance(job, ScoreJob):
            return job.seconds
        return job.clock.cpu if self.device.type == "cpu" else job.clock.wall

    def description(self, task: Task) -> str:
        """Return the text beside the progress bar: where the search is, and the best result so far."""
        reached = max((d.valid_accuracy for d in self.done), default=-1.0)
        best = f", best validation accuracy {100 * reached:.1f} %" if reached >= 0 else ""
        return f"{task.stage}{best}"

    def state_dict(self) -> dict[str, Any]:
        assert self.current is not None
        return {"done": [pack_done(d, self.space) for d in self.done], "job": self.current.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = [unpack_done(values, self.space) for values in state["done"]]
        task = self.next_task()
        if task is None:
            raise ValueError("done: expected at least one task to be left")
        self.task, self.current = task, self.start(task)
        self.current.load_state_dict(state["job"])


def named(task: Task, measured: dict[str, float]) -> dict[str, float]:
    """Return the measurements of an epoch by name, with the stage and the number of the task."""
    if task.stage == "screen":
        return {"screen_architectures": task.chunk + measured["architectures"]}
    stage = "short" if task.stage == "probe" else task.stage
    return {f"{stage}{task.number}_{key}": value for key, value in measured.items()}
