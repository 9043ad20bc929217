"""The options and the plan of ``search auto``: how the budget is divided, and which task is next.

The plan is a function of the configuration and of the finished tasks alone, so a resumed run continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.training_options import MANY, TrainingConfig
from automl_ext.training.checks import MOST_WORKERS, check_range


@dataclass
class AutoConfig(TrainingConfig):
    """Search within a budget: training-free screening, short trainings, full trainings of the best, an ensemble."""

    minutes: float = 10.0  # Budget of the search in CPU-minutes; the baselines take about as long again.
    candidates: int = 1000  # Largest number of architectures that are screened.
    finalists: int = 8  # Largest number of architectures that are trained fully, the largest one of the space included.
    baselines: bool = True  # Also train random architectures for as long as the search took.
    rounds: int = 50  # Number of rounds of the ensemble's greedy selection.
    workers: int = 1  # Number of tasks that are done at the same time; the budget counts the seconds of all of them.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "minutes", above=0)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "candidates", low=2, high=MANY)
        check_range(self, "finalists", low=2, high=100)
        check_range(self, "rounds", low=1, high=MANY)


Stage = Literal["probe", "screen", "derive", "short", "full", "random"]
CHUNK = 50  # number of architectures per screening task

# Shares of the budget. The rest is a reserve, because times are estimated.
SCREENING, DERIVE, SHORT, FULL = 0.1, 0.35, 0.25, 0.6
ETA = 3  # each rung trains ETA times as long as the one before, for equal time in all: so about one in ETA is promoted
RUNGS = 3  # largest number of rungs
LEAST_STEPS = 50  # of a short training: after fewer optimizer steps, the accuracy says little
LEAST_EPOCHS = 3  # of a full training
SUPERNET_STEPS = 300  # least number of optimizer steps of a supernet; each takes about twice those of a network


@dataclass(frozen=True)
class Task:
    """One task of the search.

    Attributes:
        stage: the stage that it belongs to.
        number: the index of the task in the list of tasks.
        genotype: the architecture to train; None for a screening.
        epochs: the number of epochs of the training.
        start: the number of the task whose weights the training starts from; None: random weights.
        chunk: the index of the first candidate of a screening.
        rung: the rung of a short training.
    """

    stage: Stage
    number: int
    genotype: Any = None
    epochs: int = 0
    start: int | None = None
    chunk: int = 0
    rung: int = 0


@dataclass
class Done:
    """A finished task and its measurements.

    Attributes:
        task: the task.
        seconds: its cost in CPU-seconds (seconds on a GPU).
        valid_accuracy: the accuracy on the validation images, 0 to 1; −1 if the training diverged.
        measured: further measurements of the stage: the scores of a screening, the encoded architectures that were
            derived, or the predictions of a full training.
    """

    task: Task
    seconds: float
    valid_accuracy: float = -1.0
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The division of the budget.

    Attributes:
        screening: seconds after which no further candidates are screened.
        derive: seconds for the training of a supernet and the derivation of architectures from it.
        rungs: number of epochs of each rung of the short trainings. Empty if architectures were derived, or if the
            budget is so small that short trainings would be too short to be of use; the first candidates are then
            trained fully.
        rung_seconds: seconds of each rung, which trains as many architectures as fit, and at least ``finalists``.
        finalists: minimum number of architectures to train fully, not counting the largest one. More are trained if
            time is left.
        epochs: number of epochs of a full training.
    """

    screening: float
    derive: float
    rungs: tuple[int, ...]
    rung_seconds: float
    finalists: int
    epochs: int


def make_plan(config: AutoConfig, epoch: float, batches: int, derived: bool = False) -> Plan:
    """Divide the budget.

    Args:
        config: its ``epochs`` and ``finalists`` are upper limits.
        epoch: seconds that an epoch of the largest architecture takes. Most others take less.
        batches: number of batches, and so of optimizer steps, in an epoch.
        derived: whether architectures were derived from a supernet. They take the place of short trainings.
    """
    budget = 60 * config.minutes
    share = SHORT + FULL - DERIVE if derived else FULL
    most = min(config.epochs, int(share * budget / (2 * epoch)))
    epochs = max(most, min(LEAST_EPOCHS, config.epochs))
    least = math.ceil(LEAST_STEPS / batches)
    wanted = () if derived else (least * ETA**rung for rung in range(RUNGS))
    short = [few for few in wanted if few * ETA <= most]
    if not derived and not short:
        share = SHORT + FULL
    finalists = max(min(config.finalists, int(share * budget / (epochs * epoch))) - 1, 1)
    rung = SHORT * budget / max(len(short), 1)
    return Plan(SCREENING * budget, DERIVE * budget, tuple(short), rung, finalists, epochs)


def next_task(
    config: AutoConfig,
    batches: int,
    candidates: Sequence[Any],
    largest: Any,
    ranked: Any,
    drawn: Any,
    supernet: bool,
    done: Sequence[Done],
) -> Task | None:
    """Return the next task, or None after the last one.

    Args:
        batches: number of batches in an epoch.
        candidates: the architectures to screen.
        largest: the largest architecture of the space.
        ranked: finished screenings and derivations → their architectures without duplicates, the best first.
        drawn: i → the i-th random architecture of the baseline.
        supernet: whether the space has a supernet.
        done: the finished tasks, in order.
    """
    number = len(done)
    if not done:
        return Task("probe", 0, largest, epochs=1)
    derived = [d for d in done if d.task.stage == "derive"]
    plan = make_plan(config, done[0].seconds, batches, any(d.measured.get("genotypes") for d in derived))
    screened = [d for d in done if d.task.stage == "screen"]
    chunk = CHUNK * len(screened)
    spent = seconds(screened)
    if chunk < len(candidates) and (spent < plan.screening or chunk < plan.finalists):
        return Task("screen", number, chunk=chunk)
    if supernet and not derived and plan.derive / done[0].seconds * batches >= 2 * SUPERNET_STEPS:
        return Task("derive", number)
    # The largest architecture is trained fully in any case, so it takes no place in the rungs.
    found = ranked([*screened, *derived])
    entrants: list[tuple[Any, int | None]] = [(genotype, None) for genotype in found if genotype != largest]
    # The candidates of the full trainings: first those of the last rung.
    others: list[tuple[Any, int | None]] = [] if plan.rungs else entrants
    for rung, epochs in enumerate(plan.rungs):
        short = [d for d in done if d.task.stage == "short" and d.task.rung == rung]
        if len(short) < len(entrants) and (len(short) < plan.finalists or time_for_another(short, plan.rung_seconds)):
            genotype, start = entrants[len(short)]
            return Task("short", number, genotype, epochs, start, rung=rung)
        entrants = [(d.task.genotype, d.task.number) for d in best(short)]
        promoted = [genotype for genotype, _ in entrants]
        others = entrants + [other for other in others if other[0] not in promoted]
    order = [*others[: plan.finalists], (largest, None), *others[plan.finalists : config.finalists - 1]]
    full = [d for d in done if d.task.stage == "full"]
    planned = min(plan.finalists, len(others)) + 1
    left = 60 * config.minutes - search_seconds(done) + seconds(full)
    if len(full) < planned or (len(full) < len(order) and time_for_another(full, left)):
        genotype, start = order[len(full)]
        return Task("full", number, genotype, plan.epochs, start)
    random = [d for d in done if d.task.stage == "random"]
    if config.baselines and seconds(random) < search_seconds(done):
        return Task("random", number, drawn(len(random)), plan.epochs)
    return None


def time_for_another(trainings: Sequence[Done], budget: float) -> bool:
    """Return whether a budget in seconds suffices for one more training, which costs as much as the mean one."""
    return seconds(trainings) * (1 + 1 / len(trainings)) <= budget


def best(done: Sequence[Done]) -> list[Done]:
    """Return the trainings that did not diverge, the most accurate first; of equal ones the earlier first."""
    return sorted((d for d in done if d.valid_accuracy >= 0), key=lambda d: -d.valid_accuracy)


def search_seconds(done: Sequence[Done]) -> float:
    """Return the cost of the search in CPU-seconds (seconds on a GPU): of all tasks except the random baseline."""
    return seconds([d for d in done if d.task.stage != "random"])


def seconds(done: Sequence[Done]) -> float:
    """Return the sum of the costs of tasks."""
    return sum(d.seconds for d in done)


def pack_done(done: Done, space: Space[Any]) -> dict[str, Any]:
    """Return a finished task as tensors and plain Python."""
    task = done.task
    values = dict(vars(task))
    values["genotype"] = None if task.genotype is None else list(space.encode(task.genotype))
    return {"task": values, "seconds": done.seconds, "valid_accuracy": done.valid_accuracy, "measured": done.measured}


def unpack_done(values: dict[str, Any], space: Space[Any]) -> Done:
    """Return the inverse of :func:`pack_done`."""
    task = dict(values["task"])
    if task["genotype"] is not None:
        task["genotype"] = space.decode(task["genotype"])
    return Done(Task(**task), float(values["seconds"]), float(values["valid_accuracy"]), values["measured"])
