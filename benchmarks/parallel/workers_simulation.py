"""Simulates searches with 1 to 1,000 workers on the table of NAS-Bench-201: where do more workers stop helping?

    python benchmarks/parallel/workers_simulation.py --seeds 100

The strategies are those of the package. Workers are simulated as :mod:`automl_ext.nas.search.search` uses them: it
keeps ``workers`` candidates in flight and waits for the oldest. An evaluation lasts as long as the training in the
table. A search ends when it has evaluated one of the ``BEST`` cells with the highest validation accuracy. Counted are
evaluations and wall-clock time, in units of the mean evaluation (a training of 12 epochs). ``--order completion``
simulates workers whose results come as soon as they are finished, for comparison.

It first compares a simulated search with the same one of the package (``check``).
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from automl_ext.nas.estimators.benchmark_table import Table, TableEvaluator
from automl_ext.nas.search.search import search
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.strategies.evolution import Evolution
from automl_ext.nas.strategies.random_search import RandomSearch
from automl_ext.nas.strategies.renas import CONTROLLERS, ReNAS, ReNASConfig
from automl_ext.nas.strategies.strategy import Strategy
from automl_ext.nas.strategies.successive_halving import SuccessiveHalving
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.intervals import t_interval
from automl_ext.training.pictures.colors import distinct_colors
from automl_ext.training.pictures.curves import figure
from automl_ext.training.seeding import derived_seed

ROOT = Path(__file__).parents[2]
WORKERS = (1, 3, 10, 30, 100, 300, 1000)
BEST = 30  # cells, 0.2 % of the table
MOST = 15_625  # evaluations
EPOCHS = (12, 200)  # budgets of successive halving


def _renas(seed: int, workers: int) -> Strategy:
    return ReNAS(NASBench201(), seed, CONTROLLERS["history"](NASBench201(), derived_seed(seed, 1), (), False))


STRATEGIES: dict[str, Callable[[int, int], Strategy]] = {
    "random": lambda seed, workers: RandomSearch(NASBench201(), seed),
    "REA": lambda seed, workers: Evolution(NASBench201(), seed),
    "ReNAS (history)": _renas,
    "successive halving, 27 candidates": lambda seed, workers: SuccessiveHalving(NASBench201(), seed, 27, EPOCHS),
    "successive halving, candidates ≥ workers": lambda seed, workers: SuccessiveHalving(
        NASBench201(), seed, max(27, workers), EPOCHS
    ),
}


class Simulated(NamedTuple):
    """One search. Times in seconds of the table."""

    evaluations: int
    wall: float
    work: float  # sum of the evaluations that were awaited
    reached: bool
    scores: list[float]


def simulate(
    strategy: Strategy, table: TableEvaluator, workers: int, goal: dict[int, float], order: str, most: int = MOST
) -> Simulated:
    """Simulate a search until it has evaluated a cell whose accuracy is at least ``goal[epochs]``."""
    in_flight: list[tuple[float, int, Any, Any]] = []  # (key of the order, number, candidate, evaluation)
    now, work, asked, scores = 0.0, 0.0, 0, []
    while len(scores) < most:
        while len(in_flight) < workers and asked < most:
            candidate = strategy.ask()
            if candidate is None:
                break
            evaluation = table.evaluate(candidate.genotype, candidate.budget)
            end = now + evaluation.cost
            heapq.heappush(in_flight, (end if order == "completion" else asked, asked, end, (candidate, evaluation)))
            asked += 1
        _, _, end, (candidate, evaluation) = heapq.heappop(in_flight)
        now = max(now, end)
        work += evaluation.cost
        strategy.tell(candidate, evaluation)
        scores.append(evaluation.score)
        if evaluation.score >= goal.get(candidate.budget or 12, np.inf):
            return Simulated(len(scores), now, work, True, scores)
    return Simulated(len(scores), now, work, False, scores)


def check(table: TableEvaluator, workers: int = 8, evaluations: int = 100) -> bool:
    """Return whether a simulated search equals the one of the package, evaluation by evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        config = ReNASConfig(evaluator="table", evaluations=evaluations, workers=workers, seed=3, controller="history")
        search("renas", config, Path(folder) / "run")
        lines = (Path(folder) / "run/metrics.jsonl").read_text().splitlines()
    found = [json.loads(line)["score"] for line in lines]
    return simulate(_renas(3, workers), table, workers, {}, "submission", evaluations).scores == found


def summary(runs: list[Simulated], unit: float, workers: int) -> dict[str, Any]:
    """Return means over seeds with 95 % intervals; times in units of the mean evaluation."""
    evaluations = [float(run.evaluations) for run in runs]
    wall = [run.wall / unit for run in runs]
    return {
        "evaluations": fmean(evaluations),
        "evaluations_ci95": t_interval(evaluations),
        "wall": fmean(wall),
        "wall_ci95": t_interval(wall),
        "busy": fmean([min(run.work / (run.wall * workers), 1.0) for run in runs]),
        "reached": sum(run.reached for run in runs),
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw evaluations and wall-clock time against workers."""
    picture = figure(11, 5.4)
    left, right = picture.subplots(1, 2)
    names = list(results)
    for name, color in zip(names, distinct_colors(names), strict=True):
        workers = [int(count) for count in results[name]]
        for axes, key in ((left, "evaluations"), (right, "wall")):
            rows = [results[name][str(count)] for count in workers]
            axes.plot(workers, [row[key] for row in rows], "o-", color=color, label=name, markersize=4)
            low, high = zip(*(row[f"{key}_ci95"] for row in rows), strict=True)
            axes.fill_between(workers, low, high, color=color, alpha=0.12, linewidth=0)
    first = results["random"]["1"]["wall"]
    right.plot(WORKERS, [first / count for count in WORKERS], "--", color="0.5", label="random, divided by workers")
    left.set_ylabel("evaluations until a best cell is found")
    right.set_ylabel("wall-clock time, in durations of a mean evaluation")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("workers (evaluations at the same time)")
        axes.set_xticks(WORKERS, [f"{count:,}" for count in WORKERS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    handles, labels = right.get_legend_handles_labels()
    picture.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=3)
    picture.suptitle(f"Search until one of the {BEST} best of {MOST:,} cells is evaluated: mean, 95 % interval")
    write_picture(picture, path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--order", choices=("submission", "completion", "both"), default="both")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/parallel_workers.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/parallel_workers.png")
    args = parser.parse_args()
    columns = Table.load()
    table = TableEvaluator(columns)
    goal = {12: float(np.sort(columns.valid_12)[-BEST]), 200: float(np.sort(columns.valid_200)[-BEST])}
    unit = fmean(table.costs[12])
    facts = {
        "seeds": args.seeds,
        "goal": {"best": BEST, "valid_12": goal[12], "valid_200": goal[200]},
        "unit_seconds": unit,
        "equals_search": check(table),
    }
    orders = ("submission", "completion") if args.order == "both" else (args.order,)
    results: dict[str, Any] = {}
    for order in orders:
        for name, make in STRATEGIES.items():
            halving = name.startswith("successive")
            wanted = {200: goal[200]} if halving else {12: goal[12]}
            rows = {}
            for workers in WORKERS:
                runs = [
                    simulate(make(seed, workers), table, workers, wanted, order, most=MOST)
                    for seed in range(args.seeds)
                ]
                rows[str(workers)] = summary(runs, unit, workers)
                print(order, name, workers, rows[str(workers)], flush=True)
            results.setdefault(order, {})[name] = rows
    args.out.write_text(json.dumps({**facts, **results}, indent=1) + "\n")
    draw(results[orders[0]], args.picture)


if __name__ == "__main__":
    main()
