"""One contender on one data set, in a process of its own: ``python contend.py JOB.json RESULT.json``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import clock
from contenders import CONTENDERS
from data_sets import load

HARD_LIMIT = 1.5  # budgets


def contend(job: dict[str, Any]) -> dict[str, Any]:
    """Learn and predict within the budget. Return the test error, and the seconds that both took."""
    problem = load(job["set"], job["seed"])
    for name in ("lightgbm", "xgboost", "optuna", "sklearn.ensemble"):  # imports are outside the budget
        __import__(name)
    if job["method"] in ("hyperopt", "flaml", "autogluon"):
        __import__({"autogluon": "autogluon.features.generators"}.get(job["method"], job["method"]))
    if job["method"].startswith("ours"):
        __import__("automl_ext.tabular")
    seconds = 60 * job["minutes"]
    wall = time.monotonic
    clock.limit_cpu(HARD_LIMIT * seconds)
    began, used = wall(), time.process_time()
    clock.use_cpu_clock()
    learned = CONTENDERS[job["method"]](problem, seconds, job["seed"])
    learning = time.process_time() - used
    value = problem.loss(learned.predict(problem.features(problem.test)))
    return {
        "metric": problem.metric,
        "value": value,
        "trials": learned.trials,
        "train_rows": len(problem.train),
        "test_rows": len(problem.test),
        "columns": problem.features(problem.train).shape[1],
        "cpu_seconds": round(learning, 2),
        "cpu_seconds_with_prediction": round(time.process_time() - used, 2),
        "wall_seconds": round(wall() - began, 2),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    Path(sys.argv[2]).write_text(json.dumps(contend(json.loads(Path(sys.argv[1]).read_text()))))
