"""Runs of TPE on the data sets of the evaluation table, with which portfolios are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from objective import Objective
from samplers import optuna_sampler

SEEDS = 4
TRIALS = 10
STARTUP = 4  # random trials of TPE; with Optuna's 10, TPE at 10 trials is random search


def run_tpe(objective: Objective, learner: str) -> list[list[float]]:
    """Return the losses of each seed, in the order of the trials."""
    runs: list[list[float]] = []
    for seed in range(SEEDS):
        ask = optuna_sampler("tpe", (learner,), n_startup_trials=STARTUP)(seed)
        runs.append([])
        for _ in range(TRIALS):
            (_, point), tell = ask()
            loss = objective(learner, point)
            tell(loss)
            runs[-1].append(float(f"{loss:.6g}"))
    return runs


def add_tpe(table: dict[str, Any], learners: Sequence[str], rows: int) -> Iterator[str]:
    """Add the runs that the table lacks. Yield a line of text after each."""
    for name, data in table["data_sets"].items():
        missing = [learner for learner in learners if learner not in data.setdefault("tpe", {})]
        objective = Objective(name, rows) if missing else None
        for learner in missing:
            assert objective is not None
            data["tpe"][learner] = run_tpe(objective, learner)
            yield f"{name} {learner}: best of TPE {min(min(losses) for losses in data['tpe'][learner])}"
