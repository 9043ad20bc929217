"""The protocol of NATS-Bench's topology space (Dong et al., TPAMI 2021, table 4), CIFAR-10: strategies on the table.

A run spends ``budget`` simulated seconds: every evaluation is charged a training of 12 epochs and the pass over the
validation images, a revisited cell again; the evaluation that overruns the budget does not count. Reported is the test
accuracy after 200 epochs of the cell with the highest validation accuracy after 12.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.benchmarks.report import draw, print_table
from automl_ext.nas.estimators.table import Table, TableEvaluator
from automl_ext.nas.retraining.retrain import MANY
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.strategies.config import MOST_WORKERS
from automl_ext.nas.strategies.evolution import Evolution
from automl_ext.nas.strategies.random_search import RandomSearch
from automl_ext.nas.strategies.registry import ALIASES
from automl_ext.nas.strategies.reinforce import ReinforceSearch
from automl_ext.nas.strategies.renas import CONTROLLERS, ControllerName, ReNAS
from automl_ext.nas.strategies.strategy import Strategy
from automl_ext.parallel.workers import Workers
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.run import Run
from automl_ext.training.seeding import derived_seed

POINTS = 200  # of a curve, at equal steps of simulated seconds
CHUNK = 10  # runs that a worker is given at once
SAVE_EVERY = 2.0  # seconds


@dataclass
class NASBenchConfig:
    """Strategies on the table of NAS-Bench-201, run after run."""

    table: str | None = None  # CSV of NAS-Bench-201; where there is none the environment variable AUTOML_EXT_NB201
    runs: int = 200  # of each algorithm
    algorithms: tuple[str, ...] = ("random", "reinforce", "rea", "renas")  # random, reinforce, rea, renas
    budget: float = 20_000.0  # simulated seconds of a run
    workers: int = 2  # processes; the results do not depend on them
    seed: int = 0  # of all runs, each of which has its own
    population: int | None = None  # of rea and renas; where nothing is given 10 and 30
    sample: int | None = None  # of the population, compete to be a parent; where nothing is given 3 and 10
    controller: ControllerName = "history"  # of renas: a regression on the whole history, or the paper's LSTM

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range(self, "runs", "population", "sample", low=1, high=MANY)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "budget", above=0)
        self.algorithms = tuple(ALIASES.get(name, name) for name in self.algorithms)
        for name in self.algorithms:
            if name not in ALGORITHMS:
                raise ValueError(f"algorithms: expected some of {', '.join(ALGORITHMS)}, got {name!r}")
        if not self.algorithms or len({*self.algorithms}) < len(self.algorithms):
            raise ValueError(f"algorithms: expected each at most once, got {' '.join(self.algorithms) or 'none'}")


def _random(config: NASBenchConfig, seed: int) -> Strategy:
    return RandomSearch(NASBench201(), seed)


def _reinforce(config: NASBenchConfig, seed: int) -> Strategy:
    return ReinforceSearch(NASBench201(), seed)


def _rea(config: NASBenchConfig, seed: int) -> Strategy:
    return Evolution(NASBench201(), seed, config.population or 10, config.sample or 3)


def _renas(config: NASBenchConfig, seed: int) -> Strategy:
    controller = CONTROLLERS[config.controller](NASBench201(), derived_seed(seed, 1))
    return ReNAS(NASBench201(), seed, controller, config.population or 30, config.sample or 10)


ALGORITHMS: dict[str, Callable[[NASBenchConfig, int], Strategy]] = {
    "random": _random,
    "reinforce": _reinforce,
    "rea": _rea,
    "renas": _renas,
}


class Runs(NamedTuple):
    """Some runs of one algorithm, as lists: a checkpoint holds them."""

    test: list[float]  # accuracy in percent of what each found
    evaluations: list[int]
    seconds: list[float]  # simulated
    cpu_seconds: list[float]
    curves: list[list[float]]  # test accuracy of the best so far, at POINTS moments; NaN before there is one

    def followed_by(self, other: Runs) -> Runs:
        return Runs(
            self.test + other.test,
            self.evaluations + other.evaluations,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.curves + other.curves,
        )


class Simulation:
    """What a worker process does."""

    def __init__(self, config: NASBenchConfig, table: Table) -> None:
        self.config, self.evaluator = config, TableEvaluator(table)

    def runs(self, algorithm: str, first: int, count: int) -> Runs:
        """Runs ``first`` … ``first + count − 1`` of the algorithm, each with a seed that follows from its number."""
        runs = Runs([], [], [], [], [])
        for number in range(first, first + count):
            start = time.process_time()
            strategy = ALGORITHMS[algorithm](self.config, derived_seed(self.config.seed, number))
            test, evaluations, seconds, curve = self.run(strategy)
            runs.test.append(test)
            runs.evaluations.append(evaluations)
            runs.seconds.append(seconds)
            runs.curves.append(curve)
            runs.cpu_seconds.append(time.process_time() - start)
        return runs

    def run(self, strategy: Strategy) -> tuple[float, int, float, list[float]]:
        """One run: test accuracy, evaluations, simulated seconds, curve."""
        budget, spent, evaluations, best, test = self.config.budget, 0.0, 0, -math.inf, math.nan
        curve = np.full(POINTS, math.nan)
        while True:
            candidate = strategy.ask()
            assert candidate is not None  # one evaluation at a time: no strategy waits
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
    """Run the algorithms, print their table beside the published one, and draw ``nas_bench.png`` where matplotlib is.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after so many runs, or a few more.

    Returns:
        What ``result.json`` holds, for every algorithm: mean and std (n − 1; None of one run) of the test accuracy in
        percent, runs, and means over runs of evaluations, simulated seconds and cpu_seconds of this machine. Beside
        REA's, other algorithms' have ``over_rea``, the difference of the means with its 95 % confidence interval. None
        when stopped.

    Raises:
        UserError: no table or a broken one, a budget too small for one evaluation.
    """
    table = Table.load(config.table)
    simulation = Simulation(config, table)
    simulation.evaluator.check_budget(config.budget)
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
        step, saved_at = run.step, time.monotonic()
        with (
            Workers(simulation.runs, config.workers) as workers,
            run.progress(config.runs * len(config.algorithms), "nas-bench") as bar,
        ):
            for chunk in chunks:
                workers.submit(*chunk)
            for name, _, count in chunks:
                some = workers.next()
                done[name] = done[name].followed_by(some) if name in done else some
                step += count
                run.log(step, **{f"{name}_mean": float(np.mean(done[name].test))})
                bar.advance(count, name)
                stop = stop_after is not None and step >= run.step + stop_after
                if stop or time.monotonic() - saved_at >= SAVE_EVERY:
                    run.save(step, {key: tuple(runs) for key, runs in done.items()})
                    saved_at = time.monotonic()
                if stop:
                    return None
        result = {name: summary(done[name], done.get("rea") if name != "rea" else None) for name in config.algorithms}
        run.finish(result)
        print_table(result, optimum=float(table.test_200.max()))
        curves = {name: np.array(runs.curves) for name, runs in done.items()}
        if importlib.util.find_spec("matplotlib"):
            draw(curves, config.budget, run.path / "nas_bench.png")
        return result


def summary(runs: Runs, rea: Runs | None) -> dict[str, Any]:
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
    """mean(a) − mean(b) of independent samples, with the normal approximation's 95 % confidence interval."""
    mean = float(a.mean() - b.mean())
    half = 1.96 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return {"mean": mean, "ci95": [mean - half, mean + half]}
