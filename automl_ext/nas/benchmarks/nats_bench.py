"""The protocol of NATS-Bench's topology space on CIFAR-10 (Dong et al., TPAMI 2021, table 4).

A run of a strategy spends ``budget`` simulated seconds. Every evaluation costs the time of a training of 12 epochs and
of one pass over the validation images, also if the cell was evaluated before. An evaluation that exceeds the budget
does not count. The reported number is the test accuracy after 200 epochs of the cell with the highest validation
accuracy after 12.

An algorithm ``NAME+screen`` first draws ``screen`` cells and ranks them by training-free scores, which a file holds.
The CPU-seconds that these scores took are charged as simulated seconds.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.benchmarks.nas_bench_report import SCREENED, draw, print_table
from automl_ext.nas.estimators.benchmark_table import CELLS, Table, TableEvaluator
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.screening.screen import STREAM, draw_rows, screened, screening_seconds
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.strategies.evolution import Evolution
from automl_ext.nas.strategies.random_search import RandomSearch
from automl_ext.nas.strategies.reinforce import ReinforceSearch
from automl_ext.nas.strategies.renas import CONTROLLERS, ControllerName, ReNAS
from automl_ext.nas.strategies.strategy import Screened, Strategy
from automl_ext.nas.training.training_options import MANY
from automl_ext.parallel.jobs import Jobs
from automl_ext.training.checks import MOST_WORKERS, check_range, check_seed
from automl_ext.training.epochs import Steps
from automl_ext.training.errors import UserError
from automl_ext.training.run import Run
from automl_ext.training.seeding import derived_seed

ALIASES = {"reinas": "renas"}  # other names of algorithms
POINTS = 200  # number of points of a curve, equally spaced in simulated seconds
CHUNK = 10  # number of runs per call of a worker
SAVE_EVERY = 2.0  # seconds between checkpoints


@dataclass
class NASBenchConfig:
    """Configuration of a comparison of search strategies on the table of NAS-Bench-201, each in repeated runs."""

    table: str = "cifar10"  # Table of NAS-Bench-201: cifar10 (part of the package), or an npz file.
    runs: int = 200  # Number of runs of each algorithm.
    # Strategies to run; +screen: with screening. renas has the controller lstm, renas-history the controller history.
    algorithms: tuple[str, ...] = ("random", "reinforce", "rea", "renas", "renas-history")
    screen: int = 1000  # Number of cells that an algorithm with +screen scores without training.
    scores: str | None = None  # File that `automl-ext score --all` wrote, for algorithms with +screen.
    budget: float = 20_000.0  # Simulated seconds of a run.
    # Number of processes; it does not affect the results.
    workers: int = field(default=2, metadata={"without_effect": True})
    seed: int = 0  # Random seed; the seed of each run is derived from it.
    population: int | None = None  # Population of rea (default 10), renas and renas-history (default 30).
    sample: int | None = None  # Tournament size of rea (default 3), renas and renas-history (default 10).

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "runs", "population", "sample", "screen", low=1, high=MANY)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "budget", above=0)
        self.algorithms = tuple(_full_name(name) for name in self.algorithms)
        for name in self.algorithms:
            if name not in ALGORITHMS:
                raise ValueError(f"algorithms: expected some of {', '.join(ALGORITHMS)}, got {name!r}")
        if not self.algorithms or len({*self.algorithms}) < len(self.algorithms):
            raise ValueError(f"algorithms: expected each at most once, got {' '.join(self.algorithms) or 'none'}")
        if any(name.endswith(SCREENED) for name in self.algorithms) and self.scores is None:
            raise ValueError("scores: expected a file that `automl-ext score --all` wrote, for algorithms with +screen")


def _full_name(name: str) -> str:
    base = name.removesuffix(SCREENED)
    return ALIASES.get(base, base) + name[len(base) :]


def _renas(
    config: NASBenchConfig, seed: int, first: Sequence[Screened], controller: ControllerName = "lstm"
) -> Strategy:
    chooser = CONTROLLERS[controller](NASBench201(), derived_seed(seed, 1), first, False)
    return ReNAS(NASBench201(), seed, chooser, config.population or 30, config.sample or 10, screened=first)


ALGORITHMS: dict[str, Callable[[NASBenchConfig, int, Sequence[Screened]], Strategy]] = {
    "random": lambda config, seed, first: RandomSearch(NASBench201(), seed, first),
    "reinforce": lambda config, seed, first: ReinforceSearch(NASBench201(), seed),
    "rea": lambda config, seed, first: Evolution(
        NASBench201(), seed, config.population or 10, config.sample or 3, screened=first
    ),
    "renas": _renas,
    "renas-history": partial(_renas, controller="history"),
}
ALGORITHMS |= {name + SCREENED: make for name, make in ALGORITHMS.items() if name != "reinforce"}


class Runs(NamedTuple):
    """Results of several runs of one algorithm, as lists that a checkpoint can contain.

    Attributes:
        test: test accuracy of the cell that each run found, in percent.
        evaluations: number of evaluations of each run.
        seconds: simulated time of each run.
        cpu_seconds: real cost of each run.
        curves: test accuracy of the best cell so far, in percent, at POINTS simulated times; NaN before the first
            evaluation.
    """

    test: list[float]
    evaluations: list[int]
    seconds: list[float]
    cpu_seconds: list[float]
    curves: list[list[float]]


class Simulation:
    """Runs strategies on the table; executed by the worker processes."""

    def __init__(self, config: NASBenchConfig, table: Table, scores: ScoreTable | None = None) -> None:
        self.config, self.evaluator, self.scores = config, TableEvaluator(table), scores

    def runs(self, algorithm: str, first: int, count: int) -> Runs:
        """Simulate the runs ``first`` … ``first + count − 1``. The seed of each run is derived from its number."""
        runs = Runs([], [], [], [], [])
        for number in range(first, first + count):
            start = time.process_time()
            seed = derived_seed(self.config.seed, number)
            best, spent = self.screen(seed) if algorithm.endswith(SCREENED) else ([], 0.0)
            strategy = ALGORITHMS[algorithm](self.config, seed, best)
            test, evaluations, seconds, curve = self.run(strategy, spent)
            runs.test.append(test)
            runs.evaluations.append(evaluations)
            runs.seconds.append(seconds)
            runs.curves.append(curve)
            runs.cpu_seconds.append(time.process_time() - start)
        return runs

    def most_screening_seconds(self) -> float:
        """Return an upper bound of the seconds that the screening of a run costs; 0 without screening."""
        if self.scores is None or not any(name.endswith(SCREENED) for name in self.config.algorithms):
            return 0.0
        return float(np.sort(self.scores.seconds)[-self.config.screen :].sum())

    def screen(self, seed: int) -> tuple[list[Screened], float]:
        """Draw and rank the cells of one run. Returns them, best first, and the seconds to charge."""
        assert self.scores is not None
        drawn = draw_rows(self.scores, self.config.screen, Random(derived_seed(seed, STREAM)))
        return screened(drawn), screening_seconds(NASBench201(), drawn)

    def run(self, strategy: Strategy, spent: float = 0.0) -> tuple[float, int, float, list[float]]:
        """Simulate one run. Returns test accuracy, number of evaluations, simulated seconds and the curve.

        Args:
            spent: simulated seconds spent on a screening before.
        """
        budget, evaluations, best, test = self.config.budget, 0, -math.inf, math.nan
        curve = np.full(POINTS, math.nan)
        while True:
            candidate = strategy.ask()
            assert candidate is not None  # with one evaluation at a time, no strategy waits
            evaluation = self.evaluator.evaluate(candidate.genotype, candidate.budget)
            if spent + evaluation.cost > budget:
                break
            spent += evaluation.cost
            evaluations += 1
            strategy.tell(candidate, evaluation)
            if evaluation.score > best:
                best, test = evaluation.score, evaluation.measured["test_accuracy"]
                curve[math.ceil(spent / budget * POINTS) - 1 :] = test
        return test, evaluations, spent, curve.tolist()


def nas_bench(
    config: NASBenchConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Run the algorithms and print their results next to the published ones.

    If matplotlib is installed, ``nas_bench.png`` is drawn too.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after this many runs, rounded up to whole calls of a worker.

    Returns:
        The content of ``result.json``. For every algorithm: ``mean`` and ``std`` (with n − 1; None for one run) of the
        test accuracy in percent, ``runs``, and the means over runs of ``evaluations``, simulated ``seconds`` and
        ``cpu_seconds`` of this machine. If "rea" is among the algorithms, the others have ``over_rea``: the difference
        of the means with its 95 % confidence interval; "+screen" is compared with "rea+screen". None if interrupted.

    Raises:
        UserError: the table is missing or broken, or the budget is too small for one evaluation.
    """
    table = Table.load(config.table)
    simulation = Simulation(config, table, _scores(config))
    reserve = simulation.most_screening_seconds()
    simulation.evaluator.check_budget(config.budget - reserve)
    done: dict[str, Runs] = {}

    def load(state: dict[str, Any]) -> None:
        nonlocal done
        done = {name: Runs(*state[name]) for name in config.algorithms if name in state}

    with Run.open(out, config, algorithm="nas-bench", resume=resume, load=load) as run:
        chunks = [
            (name, first, min(CHUNK, config.runs - first))
            for name in config.algorithms
            for first in range(len(done[name].test) if name in done else 0, config.runs, CHUNK)
        ]

        def state() -> dict[str, Any]:
            return {key: tuple(runs) for key, runs in done.items()}

        total = config.runs * len(config.algorithms)
        with (
            Jobs(simulation.runs, config.workers, deque(chunks)) as jobs,
            Steps(run, total, "nas-bench", stop_after, state, every=SAVE_EVERY) as steps,
        ):
            for (name, _, count), some in jobs.each():
                before: tuple[Any, ...] = done.get(name, Runs([], [], [], [], []))
                done[name] = Runs(*(a + b for a, b in zip(before, some, strict=True)))
                steps.add({f"{name}_mean": float(np.mean(done[name].test))}, size=count, description=name)
                if steps.stopped:
                    return None
        result = {name: summary(done[name], done.get(rival(name))) for name in config.algorithms}
        run.finish(result)
        optimum = float(table.test_200.max())
        print_table(result, optimum, table.dataset)
        curves = {name: np.array(runs.curves) for name, runs in done.items()}
        if importlib.util.find_spec("matplotlib"):
            draw(curves, config.budget, run.path / "nas_bench.png", optimum, table.dataset)
        return result


def _scores(config: NASBenchConfig) -> ScoreTable | None:
    """Read the file of scores; it must hold every cell, so that a draw from it is a draw from the space."""
    if config.scores is None:
        return None
    scores = ScoreTable.read(Path(config.scores), NASBench201())
    if len({*scores.genotypes}) != CELLS or len(scores.genotypes) != CELLS:
        raise UserError(f"scores: {config.scores}: expected each of the {CELLS} cells once; see automl-ext score --all")
    return scores


def rival(name: str) -> str:
    """Return the algorithm that ``name`` is compared with: REA, with screening if ``name`` has it; "" for REA."""
    rea = "rea+screen" if name.endswith(SCREENED) else "rea"
    return "" if name == rea else rea


def summary(runs: Runs, rea: Runs | None) -> dict[str, Any]:
    """Summarize the runs of one algorithm for ``result.json``; see :func:`nas_bench`."""
    test = np.array(runs.test)
    result: dict[str, Any] = {
        "mean": float(test.mean()),
        "std": float(test.std(ddof=1)) if len(test) > 1 else None,
        "runs": len(test),
        "evaluations": float(np.mean(runs.evaluations)),
        "seconds": float(np.mean(runs.seconds)),
        "cpu_seconds": float(np.mean(runs.cpu_seconds)),
    }
    return result if rea is None or len(test) < 2 else result | {"over_rea": difference(test, np.array(rea.test))}


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, Any]:
    """Compute mean(a) − mean(b) of independent samples, with a 95 % confidence interval (normal approximation)."""
    mean = float(a.mean() - b.mean())
    half = 1.96 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return {"mean": mean, "ci95": [mean - half, mean + half]}
