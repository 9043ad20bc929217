"""Points for portfolios: the best ones that TPE finds on each data set, evaluated on all data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from objective import Objective, rounded
from samplers import optuna_sampler

STUDIES = 4  # per data set and learner, with seeds from 0
TRIALS = 30  # of each study
STARTUP = 4  # random trials of TPE; with Optuna's 10, TPE at 10 trials is random search
KEPT = 3  # best points per data set and learner


def study_tpe(objective: Objective, learner: str) -> dict[str, Any]:
    """Run the studies of one learner on one data set.

    Returns:
        ``losses`` of each study in the order of its trials, and the ``best`` points of all.
    """
    found: list[tuple[float, str]] = []
    losses: list[list[float]] = []
    for seed in range(STUDIES):
        ask = optuna_sampler("tpe", (learner,), n_startup_trials=STARTUP)(seed)
        losses.append([])
        for _ in range(TRIALS):
            (_, point), tell = ask()
            loss = objective(learner, point)
            tell(loss)
            losses[-1].append(float(f"{loss:.6g}"))
            found.append((loss, json.dumps(rounded(point))))
    best = list(dict.fromkeys(point for _, point in sorted(found)))[:KEPT]
    return {"losses": losses, "best": [json.loads(point) for point in best]}


def tuned_points(table: dict[str, Any], learner: str) -> list[dict[str, Any]]:
    """Return the best points of all data sets, each with the name of the set on which it was found."""
    return [
        {"found_on": name, "point": point}
        for name, data in table["data_sets"].items()
        for point in data["tpe"][learner]["best"]
    ]


def evaluate_tuned(table: dict[str, Any], learners: Sequence[str], rows: int) -> Iterator[str]:
    """Run the studies that the table lacks, then evaluate the tuned points on each data set. Yield what was done."""
    for name, data in table["data_sets"].items():
        missing = [learner for learner in learners if learner not in data.setdefault("tpe", {})]
        objective = Objective(name, rows) if missing else None
        for learner in missing:
            assert objective is not None
            data["tpe"][learner] = study_tpe(objective, learner)
            yield f"{name} {learner}: best of TPE {min(min(losses) for losses in data['tpe'][learner]['losses'])}"
    for learner in learners:
        found = tuned_points(table, learner)
        if table.setdefault("tuned", {}).get(learner) != found:  # the losses of other points are of no use
            table["tuned"][learner] = found
            for data in table["data_sets"].values():
                data.setdefault("tuned", {}).pop(learner, None)
    for name, data in table["data_sets"].items():
        missing = [learner for learner in learners if learner not in data["tuned"]]
        objective = Objective(name, rows) if missing else None
        for learner in missing:
            assert objective is not None
            losses = [objective(learner, each["point"]) for each in table["tuned"][learner]]
            data["tuned"][learner] = [float(f"{loss:.6g}") for loss in losses]
            yield f"{name} {learner}: best of the tuned points {min(losses)}"
