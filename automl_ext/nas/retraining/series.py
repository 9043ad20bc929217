"""A run that trains several networks one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from automl_ext.nas.retraining.training import NetworkTraining, TrainingConfig
from automl_ext.training.epochs import Epochs
from automl_ext.training.run import Run

Result = dict[str, Any]


def train_series(
    config: TrainingConfig,
    out: str | Path,
    algorithm: str,
    *,
    count: int,
    start: Callable[[int], NetworkTraining],
    measure: Callable[[int, NetworkTraining, Path], Result],
    summarize: Callable[[list[Result]], Result],
    prefix: str,
    resume: str | None,
    stop_after: int | None,
) -> Result | None:
    """Train ``count`` networks in the run directory ``out``.

    Args:
        algorithm: the name under which the run is stored.
        start: number of a network → its training. Called for network 0 before the run directory exists, so that
            errors come first.
        measure: number, finished training and run directory → the result of the network.
        summarize: the results of all networks → the result of the run.
        prefix: metrics of network i are named ``{prefix}{i}_…``.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of epochs, of all networks together, after which to interrupt the run.

    Returns:
        The result of the run, which ``result.json`` also holds. None if the run was interrupted.
    """
    training = start(0)
    results: list[Result] = []

    def load(state: dict[str, Any]) -> None:
        nonlocal results, training
        results = state["results"] if "results" in state else state["trained"]  # the key in ensembles before 0.1.0
        training = start(len(results))
        training.load_state_dict(state["job"])

    with Run.open(out, config, algorithm=algorithm, resume=resume, load=load) as run:
        first = len(results)
        with Epochs(run, count * config.epochs, algorithm, stop_after) as epochs:
            for i in range(first, count):
                if i > first:
                    training = start(i)
                if not epochs.run(training, f"{prefix}{i}", {"results": results}):
                    return None
                results = [*results, measure(i, training, run.path)]
        result = summarize(results)
        run.finish(result)
        return result
