"""``search auto``: the best network that a budget of CPU-minutes gives, found by a race of networks in training.

    probe     a few steps of two networks: the time of a step on this machine decides which networks may enter, and
              whether they are computed in bfloat16
    score     rank random cells by training-free scores; the best one may enter
    race      rungs of equal cost: all networks train on, the better half of them stays (Jamieson & Talwalkar 2016)
    last      the winner goes on from its weights until the budget is spent, at the end with a falling rate
    baseline  with --baselines: three networks that a user would train, each for the whole budget

The race compares networks by their loss on validation images, which are not trained on. If there are few images, the
winner is also trained on the validation images after the race, and a baseline after the same share of the budget. If no
network beats chance, the losses eliminate no network: only the first one, which fits the budget best, goes on. The test
images influence no choice.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import torch
from torch import Tensor

from automl_ext.nas.auto.auto_result import best_so_far, is_earlier, summarize
from automl_ext.nas.auto.entrant import Entrant
from automl_ext.nas.auto.plan import (
    BEST_RANKED,
    SCREEN,
    AutoConfig,
    Networks,
    NetworkSpec,
    Plan,
    affordable,
    baselines_of,
    make_plan,
    race_share,
    recipe_of,
    step_seconds,
    text_of,
)
from automl_ext.nas.auto.trainee import DECAY, Recipe
from automl_ext.nas.auto.work import CHUNK, Finished, Task, Worker, divide
from automl_ext.nas.data import prepare
from automl_ext.nas.ensembles.network import save_member
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import complete
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.screening.screen import draw_candidates, screened
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.training_options import class_weights
from automl_ext.parallel.jobs import Jobs
from automl_ext.training.epochs import Steps
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_json
from automl_ext.training.run import BEST, Run
from automl_ext.training.seeding import derived_seed

VERSION = 7  # of the state in a checkpoint
FASTER = 0.8  # networks are computed in bfloat16 if a step then takes at most this part of its time
FIRST_STEPS = 8  # of a baseline
MEASURED = 0.2  # part of the budget after which the time of a step is known
LEARNED = 0.2  # part of the mean recall above chance from which on a network tells whether images may be mirrored
FLIPS = 0.8  # images are mirrored if this part of the mean recall above chance is left on mirrored ones
LONG_EPOCHS, LONG_STEPS = 40, 4000  # a training is long if both are planned
CUTMIX, WEIGHT_DECAY = 0.5, 1e-3  # of long trainings
PART = 5.0  # seconds that a task takes
SAVE_EVERY = 2.0  # seconds between checkpoints


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
        out: the run directory. Until the search ends, ``best.json`` names the best network so far, which
            ``automl-ext export`` takes.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of steps after which to interrupt the run; a step is a part of a training, of about five
            seconds, or the scores of a few cells.
        space: the search space of cells; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.

    Returns:
        The contents of ``result.json``; see :func:`~automl_ext.nas.auto.auto_result.summarize`. None if the run was
        interrupted. The plan depends on the speed of the machine, because the budget is a time.

    Raises:
        UserError: the data, the configuration or the run directory is invalid, or all trainings diverged.
    """
    race = prepare_race(config, space, data)
    with Run.open(out, race.config, algorithm="auto", resume=resume, load=race.load_state_dict) as run:
        with (
            Jobs(race.worker.work, config.workers, race.pending, race.arguments) as jobs,
            Steps(run, 100, "auto", stop_after, race.state_dict, every=SAVE_EVERY, percent=race.percent) as steps,
        ):
            while not steps.stopped:
                jobs.fill(race.next_task)
                if not race.pending:
                    break
                task, finished = jobs.next()
                race.finish(task, finished, Path(out))
                steps.add(race.named(task, finished), description=race.description(task))
            else:
                return None
        result = race.result()
        run.finish(result)
        Path(out, BEST).unlink(missing_ok=True)
        return result


def plan_text(config: AutoConfig) -> str:
    """Measure the speed of this machine, and return the plan of a search as text. No run directory is made."""
    race = prepare_race(config, None, None)
    task = race.next_task()
    assert task is not None
    race.take(task, race.worker.work(*race.arguments(task)))
    return race.text()


def prepare_race(config: AutoConfig, space: Space[Any] | None, data: Any) -> Race:
    config, splits = prepare(config, data)
    start = process_time()
    networks = Networks(config.space, space or spaces.space(config.space), splits)
    return Race(config, networks, process_time() - start)


class Race:
    """The state of a search.

    Args:
        seconds: cost of ``networks`` in CPU-seconds.

    Attributes:
        entrants: the networks in training: those of the plan, then the baselines.
        spent: the cost of the finished tasks in CPU-seconds, by stage; planning is part of the stage "probe".
        pending: the tasks that are being run.
        chance: log-probabilities of the classes for predictions by class frequency, without an image, [classes].
    """

    def __init__(self, config: AutoConfig, networks: Networks, seconds: float) -> None:
        self.config, self.networks = config, networks
        self.images = divide(networks.splits, config.seed)
        space = networks.spaces[config.space]
        rng = Random(derived_seed(config.seed, 1))
        self.candidates = draw_candidates(space, config.candidates, rng, partial(complete, space))
        self.worker = Worker(config, networks, self.images, self.candidates)
        self.recipe = recipe_of(config, networks.splits, len(self.images.train.labels))
        self.chance = class_log_probabilities(config, self.images.train.labels, networks.splits.num_classes)
        self.plan: Plan | None = None
        self.entrants: list[Entrant] = []
        self.tables: list[dict[str, Any]] = []  # scores of cells
        self.spent = {"probe": seconds}
        self.pending: deque[Task] = deque()

    def next_task(self) -> Task | None:
        """Return a task that can start before the pending ones end; None: there is no such task now."""
        if self.plan is None:
            return None if self.pending else Task("probe")
        if any(e.entry.genotype == BEST_RANKED for e in self.entrants):
            return None if self.pending else Task("score", chunk=CHUNK * len(self.tables))
        for rung in range(len(self.plan.rungs)):
            waiting = [e for e in self.alive(rung) if len(e.losses) == rung]
            if waiting:
                return next((self.race_task(e, rung) for e in waiting if self.is_free(e)), None)
        winner = self.winner()
        if not winner.finished:
            return self.last_task(winner, "last") if self.is_free(winner) else None
        if self.config.baselines and not self.baselines:
            self.enter(baselines_of(self.config, self.networks), baseline=True)
            return self.next_task()
        waiting = [e for e in self.baselines if not e.finished and self.is_free(e)]
        return self.last_task(waiting[0], "baseline") if waiting else None

    def alive(self, rung: int) -> list[Entrant]:
        """Return the networks that reach a rung: the best of the rung before, each only with its best learning rate.

        If no network beat chance in the rung before, only the one that entered first goes on.
        """
        assert self.plan is not None
        racing = [e for e in self.entrants if not e.baseline]
        if rung == 0:
            return racing
        last = rung == len(self.plan.rungs)
        # A network that diverged later keeps its place in a rung, which would else be open for another one.
        finite = [e for e in self.alive(rung - 1) if math.isfinite(e.losses[rung - 1]) and not (last and e.diverged)]
        if not self.decided(rung - 1):
            return finite[:1]
        before = sorted(finite, key=lambda e: e.losses[rung - 1])
        best = {e.entry._replace(name="", rate=1.0): e for e in reversed(before)}
        return [e for e in before if best[e.entry._replace(name="", rate=1.0)] is e][
            : 1 if last else self.plan.rungs[rung].entries
        ]

    def decided(self, rung: int) -> bool:
        """Return whether a network has beaten chance in a rung, so that the losses tell which one is better."""
        return any(e.learned[rung] for e in self.entrants if not e.baseline and len(e.learned) > rung)

    def winner(self) -> Entrant:
        """Return the winner of the race; if all networks of the last rung diverged, the best of the other networks.

        Raises:
            UserError: all diverged.
        """
        assert self.plan is not None
        found = self.alive(len(self.plan.rungs)) or [e for e in self.entrants if not (e.baseline or e.diverged)]
        if not found:
            raise UserError("search auto: all trainings diverged; try a lower --lr")
        return min(found, key=lambda e: (-len(e.losses), e.losses[-1]))

    @property
    def baselines(self) -> list[Entrant]:
        return [e for e in self.entrants if e.baseline]

    def is_free(self, entrant: Entrant) -> bool:
        return all(task.entry != entrant.number for task in self.pending)

    def race_task(self, entrant: Entrant, rung: int) -> Task:
        """Return the next part of a training in a rung, which ends with a measurement."""
        assert self.plan is not None
        return self.part(entrant, "race", sum(r.seconds for r in self.plan.rungs[: rung + 1]))

    def part(self, entrant: Entrant, stage: str, end: float) -> Task:
        """Return the next part of a training until ``end``, in seconds of the training, and then a measurement."""
        left, cost = end - entrant.seconds, self.step_seconds(entrant)
        steps = max(round(min(left, PART) / cost), 1)
        return Task(stage, entrant.number, entrant.steps + steps, measure=left <= steps * cost + cost)

    def last_task(self, entrant: Entrant, stage: str) -> Task:
        """Return the next part of a training until the end of the budget.

        A baseline is measured when it has had as much time as the race, before it is trained on few validation images.
        """
        if entrant.steps < FIRST_STEPS:
            return Task(stage, entrant.number, FIRST_STEPS)
        if not entrant.losses:
            return self.part(entrant, stage, race_share(len(self.images.train.labels)) * self.config.budget)
        cost = self.step_seconds(entrant)
        left = self.config.budget - (entrant.seconds if entrant.baseline else self.search_seconds())
        unknown = MEASURED * self.config.budget - entrant.seconds  # until then, the time of a step is not known well
        if 0 < unknown <= left:
            until = entrant.steps + max(round(min(unknown + cost, PART) / cost), 1)
            return Task(stage, entrant.number, until, last=True)
        if entrant.end is None or entrant.steps < entrant.decay_start:  # until the rate falls: the speed may change
            least = int(entrant.steps / (1 - DECAY)) + 1  # so that the rate falls after this step
            entrant.end = max(entrant.steps + round(left / cost), least)
        stop = entrant.end if entrant.steps >= entrant.decay_start else entrant.decay_start
        until = min(stop, entrant.steps + max(round(PART / cost), 1))
        return Task(stage, entrant.number, until, entrant.end, last=True, measure=until == stop)

    def step_seconds(self, entrant: Entrant) -> float:
        """Return the time of a training step: measured if there is a measurement, else predicted."""
        assert self.plan is not None
        return entrant.seconds / entrant.steps if entrant.steps else self.plan.seconds[entrant.number]

    def found(self) -> tuple[float, bool]:
        """Return the learning rate, relative to that of the recipe, and whether to mirror images.

        Both are decided by the first rung in which a network beats chance. The learning rate is that of the best
        network among those that differ only in their learning rate. For mirroring, the best network is measured on
        mirrored images, although it was not trained on any: see :func:`survives_mirroring`.
        """
        assert self.plan is not None
        rung = self.deciding()
        if rung is None:
            return 1.0, bool(self.config.flip)
        best, *_ = sorted(self.alive(rung), key=lambda e: e.losses[rung])
        first = self.entrants[0].entry
        twins = [e for e in self.alive(rung) if e.entry[1:5] == first[1:5]]
        flip = self.config.flip
        if flip is None:
            images = torch.bincount(self.images.valid.labels, minlength=self.networks.splits.num_classes)
            counts = best.mirrored[rung]
            flip = counts is not None and survives_mirroring(*counts, images)
        return min(twins, key=lambda e: e.losses[rung]).entry.rate if twins else 1.0, flip

    def deciding(self) -> int | None:
        """Return the first rung in which a network beats chance; None: there is none so far."""
        assert self.plan is not None
        return next((rung for rung in range(len(self.plan.rungs)) if self.decided(rung)), None)

    def recipe_for(self, entrant: Entrant) -> Recipe:
        """Return the recipe of the next part of a training."""
        assert self.plan is not None
        rung = self.deciding()
        racing = len(entrant.losses) < len(self.plan.rungs) and (rung is None or len(entrant.losses) <= rung)
        if racing and not entrant.baseline:
            return replace(self.recipe, lr=self.recipe.lr * entrant.entry.rate)
        rate, flip = self.found()
        recipe = replace(self.recipe, lr=self.recipe.lr * rate, flip=flip)
        steps = self.config.budget / self.plan.seconds[0]
        epochs = steps * recipe.batch_size / len(self.images.train.labels)
        if epochs < LONG_EPOCHS or steps < LONG_STEPS:
            return recipe
        cutmix = CUTMIX if self.config.cutmix is None else self.config.cutmix
        return replace(recipe, cutmix=cutmix, weight_decay=WEIGHT_DECAY)

    def arguments(self, task: Task) -> tuple[Any, ...]:
        """Return the arguments of :meth:`Worker.work`."""
        if task.entry < 0:
            return task, None, self.recipe, None
        entrant = self.entrants[task.entry]
        return task, entrant.entry, self.recipe_for(entrant), entrant.state

    def finish(self, task: Task, finished: Finished, out: Path) -> None:
        """Take the result of a task; write the best network so far."""
        before = [len(e.losses) for e in self.entrants]
        self.take(task, finished)
        if task.stage == "probe":
            print(self.text(), flush=True)
        if task.entry < 0 or self.entrants[task.entry].baseline:
            return
        rung = before[task.entry]
        if task.stage == "race" and len(self.entrants[task.entry].losses) > rung and (text := self.text_of_rung(rung)):
            print(text, flush=True)
        leader = min((e for e in self.entrants if e.losses), key=lambda e: (-len(e.losses), e.losses[-1]), default=None)
        if leader is self.entrants[task.entry] and leader.state is not None and not leader.diverged:
            save_member(out, leader.number, leader.weights())
            write_json(out / BEST, best_so_far(leader, self.entrants, self.networks))

    def take(self, task: Task, finished: Finished) -> None:
        """Take the result of a task."""
        stage = "baseline" if self.baselines else task.stage
        self.spent[stage] = self.spent.get(stage, 0.0) + finished.seconds
        if task.stage == "probe":
            start = process_time()
            images = len(self.images.train.labels)
            times = {name: values.tolist() for name, values in (finished.table or {}).items()}
            macs, batch = affordable(self.config, self.networks, images, times["seconds"]), self.recipe.batch_size
            costs = {name: step_seconds(self.networks, probe, batch, macs) for name, probe in times.items()}
            if costs.get("bfloat16", math.inf) < FASTER * costs["seconds"]:
                self.recipe, times["seconds"] = replace(self.recipe, bfloat16=True), times["bfloat16"]
            self.plan = make_plan(self.config, self.networks, images, times["seconds"])
            self.enter(self.plan.entries)
            self.spent["probe"] += process_time() - start
        elif task.stage == "score":
            self.tables.append(finished.table or {})
            every = CHUNK * len(self.tables) >= len(self.candidates)
            if every or sum(float(t["seconds"].sum()) for t in self.tables) >= SCREEN * self.config.budget:
                self.choose_cell()
        else:
            self.entrants[task.entry].take(task, finished, self.images.valid.labels, self.chance)

    def enter(self, entries: list[NetworkSpec], baseline: bool = False) -> None:
        """Add networks. The best-ranked cell is known if cells were scored."""
        for entry in entries:
            self.entrants.append(Entrant(len(self.entrants), entry, baseline))
        if self.tables:
            self.choose_cell()

    def choose_cell(self) -> None:
        """Give the entries without a genotype the cell with the highest training-free rank."""
        columns = {name: torch.cat([table[name] for table in self.tables]).numpy() for name in (*RANK, "seconds")}
        seconds = columns.pop("seconds")
        best, *_ = screened(ScoreTable(self.candidates[: len(seconds)], columns, seconds))
        for e in self.entrants:
            if e.entry.genotype == BEST_RANKED:
                e.entry = e.entry._replace(genotype=str(best.genotype))

    def text(self) -> str:
        """Return the plan as text."""
        assert self.plan is not None
        sizes = [len(part.labels) for part in (self.images.train, self.images.valid, self.images.test)]
        return text_of(self.plan, self.config, sizes, self.recipe)

    def text_of_rung(self, rung: int) -> str:
        """Return a sentence if the losses of a rung decide nothing; else ""."""
        entrants = self.alive(rung)
        if len(entrants) < 2 or self.decided(rung) or any(len(e.losses) <= rung for e in entrants):
            return ""
        name = next((e.entry.name for e in self.alive(rung + 1)), "no network")
        return (
            f"race {rung + 1}: no network beats chance by two standard errors, so the losses decide nothing; "
            f"{name} goes on, which fits the budget best"
        )

    def search_seconds(self) -> float:
        """Return the cost of the search so far, without the baselines."""
        return sum(seconds for stage, seconds in self.spent.items() if stage != "baseline")

    def result(self) -> dict[str, Any]:
        """Return the contents of ``result.json``."""
        assert self.plan is not None
        winner = self.winner()
        decided = all(self.decided(rung) for rung in range(len(self.plan.rungs)) if len(self.alive(rung)) > 1)
        recipe = self.recipe_for(winner)
        return summarize(self.networks, self.images, winner, self.entrants, recipe, self.spent, decided)

    def percent(self) -> int:
        """Return how much of the budget is spent, in percent, at most 99; the baselines have a budget each."""
        total = self.config.budget * (4 if self.config.baselines else 1)
        return min(int(100 * sum(self.spent.values()) / total), 99)

    def description(self, task: Task) -> str:
        """Return the text beside the progress bar."""
        return task.stage if task.entry < 0 else f"{task.stage}: {self.entrants[task.entry].entry.name}"

    def named(self, task: Task, finished: Finished) -> dict[str, float]:
        """Return the measurements of a task by name."""
        if task.entry < 0:
            return {f"{task.stage}_seconds": finished.seconds}
        entrant = self.entrants[task.entry]
        values = {"loss": finished.loss, "epochs": entrant.epochs, "seconds": entrant.seconds}
        if finished.valid is not None and not (task.last and is_earlier(entrant, self.images)):
            values["valid_loss"] = entrant.losses[-1]
        return {f"{task.stage}{task.entry}_{key}": value for key, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "plan": None if self.plan is None else self.plan.pack(),
            "bfloat16": self.recipe.bfloat16,
            "entrants": [e.state_dict() for e in self.entrants],
            "tables": self.tables,
            "spent": dict(self.spent),
            "pending": [tuple(task) for task in self.pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("version") != VERSION:
            raise ValueError(
                f"version: expected {VERSION}, got {state.get('version')}: another version began this search"
            )
        self.plan = None if state["plan"] is None else Plan.unpack(state["plan"])
        self.recipe = replace(self.recipe, bfloat16=state["bfloat16"])
        self.entrants = [Entrant.from_state(values) for values in state["entrants"]]
        self.tables, self.spent = list(state["tables"]), dict(state["spent"])
        self.pending.extend(Task(*values) for values in state["pending"])


def class_log_probabilities(config: AutoConfig, labels: Tensor, classes: int) -> Tensor:
    """Return the log-probabilities that a network without inputs would learn, float64 [classes]."""
    shares = torch.bincount(labels, minlength=classes).clamp(min=1).double()
    weights = class_weights(config.class_weights, labels, classes)
    if weights is not None:
        shares = shares * weights
    return (shares / shares.sum()).log()


def survives_mirroring(mirrored: Tensor, plain: Tensor, images: Tensor) -> bool:
    """Return whether training images may be mirrored: mirroring makes neither images nor a class unrecognizable.

    Every class counts, however rare it is, because mirroring may turn a single class into another one: at least half of
    its recognized images must also be recognized when they are mirrored, within 1.5 standard errors of their number.

    Args:
        mirrored, plain: number of recognized images of each class, mirrored and as they are.
        images: number of images of each class.
    """
    present, chance = images > 0, 1 / len(images)
    recall, left = ((x[present] / images[present]).mean().item() - chance for x in (plain, mirrored))
    learned = recall >= LEARNED * (1 - chance)  # else the network recognizes no image, mirrored or not
    error = (plain * (1 - (plain + 1) / (images + 2))).sqrt()
    lost = plain - mirrored > plain / 2 + 1.5 * error
    return learned and left >= FLIPS * recall and not bool(lost.any())
