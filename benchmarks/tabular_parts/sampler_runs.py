"""Samplers at 50 trials, live: random search, TPE, GP, CMA-ES, and experience, which is a portfolio and then TPE."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clock
from objective import Objective
from portfolios import SIZE, past_studies
from samplers import optuna_sampler

from automl_ext.training.intervals import t_interval
from automl_ext.training.machine.environment import cpu_name
from automl_ext.tune.portfolio_building import build_portfolio

LEARNER = "lightgbm"
DEFAULTS = {  # the nearest point of the space
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_child_samples": 20,
    "feature_fraction": 1.0,
    "bagging_fraction": 1.0,
    "lambda_l2": 1e-3,
    "extra_trees": False,
}
TRIALS = 50
ROWS = 2000
SHOWN = (10, 25, 50)  # numbers of trials
SAMPLERS = ("random", "tpe", "gp", "cma", "experience")


def run_samplers(path: Path, table: dict[str, Any], names: Sequence[str], seeds: Sequence[int]) -> None:
    """Run every sampler on the data sets with all seeds; rows in the file are not repeated."""
    content = json.loads(path.read_text()) if path.is_file() else {"rows": []}
    content |= {
        "command": "python benchmarks/experience.py samplers",
        "machine": f"1 thread of {cpu_name()}",
        "learner": LEARNER,
        "rows_of_data": ROWS,
        "trials": TRIALS,
    }
    done = {(row["set"], row["sampler"], row["seed"]) for row in content["rows"]}
    clock.use_cpu_clock()
    for name in names:
        objective = Objective(name, ROWS)
        first = [DEFAULTS, *build_portfolio(past_studies(table, LEARNER, left_out=name), SIZE).points]
        for seed in seeds:
            for sampler in SAMPLERS:
                if (name, sampler, seed) in done:
                    continue
                started = time.process_time()
                best = _best_so_far(objective, sampler, first, seed)
                seconds = time.process_time() - started
                row = {"set": name, "sampler": sampler, "seed": seed, "best": best, "cpu_seconds": round(seconds, 2)}
                content["rows"].append(row)
                path.write_text(json.dumps(content).replace('{"set"', '\n{"set"') + "\n")
                print(f"{name} {sampler} seed {seed}: {best[-1]} in {seconds:.0f} CPU seconds", flush=True)


def _best_so_far(objective: Objective, sampler: str, first: list[dict[str, Any]], seed: int) -> list[float]:
    """Return the lowest loss after each number of trials in ``SHOWN``."""
    kind, points = ("tpe", first) if sampler == "experience" else (sampler, [])
    ask = optuna_sampler(kind, (LEARNER,), first=points)(seed)
    best, found = math.inf, []
    for trial in range(1, TRIALS + 1):
        (learner, point), tell = ask()
        loss = objective(learner, point)
        tell(loss)
        best = min(best, loss)
        if trial in SHOWN:
            found.append(float(f"{best:.6g}"))
    return found


def compared(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return per sampler and number of trials the loss relative to random search, and its 95 % interval.

    The loss is divided by the mean loss of random search at 50 trials on that data set. The interval is that of the
    mean over data sets and seeds of the differences to random search with the same seed (Student's t).
    """
    by = {(row["set"], row["sampler"], row["seed"]): row["best"] for row in content["rows"]}
    pairs = sorted({(name, seed) for name, sampler, seed in by})
    pairs = [pair for pair in pairs if all((pair[0], sampler, pair[1]) in by for sampler in SAMPLERS)]
    scale = {
        name: statistics.fmean(by[other, "random", seed][-1] for other, seed in pairs if other == name)
        for name in {name for name, _ in pairs}
    }
    rows = []
    for sampler in SAMPLERS:
        for i, trials in enumerate(SHOWN):
            differences = [
                100 * (by[name, sampler, seed][i] - by[name, "random", seed][i]) / scale[name] for name, seed in pairs
            ]
            mean = statistics.fmean(differences) if differences else 0.0
            low, high = t_interval(differences) or (mean, mean)
            rows.append({"sampler": sampler, "trials": trials, "percent": mean, "low": low, "high": high})
    return rows


def sampler_summary(rows: list[dict[str, Any]]) -> str:
    """Return the rows of :func:`compared` as text."""
    return "\n".join(
        f"{row['sampler']:<12}{row['trials']:>3} trials: {row['percent']:+.2f} % of random search's loss "
        f"({row['low']:+.2f} to {row['high']:+.2f})"
        for row in rows
        if row["sampler"] != "random"
    )
