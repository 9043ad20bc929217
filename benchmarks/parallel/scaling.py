"""Measures what parallel calls cost on this machine: the overhead per call of each back end, and the scaling.

    OMP_NUM_THREADS=1 python benchmarks/parallel/scaling.py

Overhead: seconds per call of a function that returns its argument, with two calls in flight; the processes run
already. Scaling: independent trainings of a network on the digits data, with one and with two workers; the processes
have made one training each before. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.jobs import Jobs
from automl_ext.training.machine.environment import cpu_name

ROOT = Path(__file__).parents[2]
CONV = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def same(value: Any) -> Any:
    """Return the argument."""
    return value


class Training:
    """A training of a small network; executed by the workers."""

    def __init__(self, epochs: int) -> None:
        self.fidelity = LowerFidelity(TrainingConfig(epochs=epochs, channels=8, device="cpu"))

    def __call__(self, number: int) -> float:
        return self.fidelity.evaluate(self.fidelity.space.parse(CONV)).score


def seconds(function: Callable[..., Any], workers: int, calls: int, warm: int) -> float:
    """Return the wall-clock seconds of ``calls`` calls, after ``warm`` others."""
    with Jobs(function, workers, ahead=max(calls, warm)) as jobs:
        deque(jobs.each((number,) for number in range(warm)), maxlen=0)
        begin = time.perf_counter()
        deque(jobs.each((number,) for number in range(calls)), maxlen=0)
        return time.perf_counter() - begin


def measure(calls: int, repeat: int, trainings: int, epochs: int) -> dict[str, Any]:
    """Measure one back end: the milliseconds per call, and the speedup of two workers over one."""
    overhead = [seconds(same, 2, calls, 20) / calls for _ in range(repeat)]
    training = Training(epochs)
    one, two = ([seconds(training, workers, trainings, workers) for _ in range(repeat)] for workers in (1, 2))
    speedup = median(one) / median(two)
    return {
        "overhead_ms": 1000 * median(overhead),
        "overhead_ms_all": [1000 * value for value in overhead],
        "one_worker_seconds": one,
        "two_workers_seconds": two,
        "speedup": speedup,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--trainings", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/parallel.json")
    args = parser.parse_args()
    settings = (args.calls, args.repeat, args.trainings, args.epochs)
    results: dict[str, Any] = {"machine": {"cpu": cpu_name(), "cpus": len(os.sched_getaffinity(0))}}
    results["settings"] = {"calls": args.calls, "trainings": args.trainings, "epochs": args.epochs}
    alone = [seconds(same, 1, args.calls, 20) / args.calls for _ in range(args.repeat)]
    results["in this process"] = {"overhead_ms": 1000 * median(alone), "overhead_ms_all": [1000 * a for a in alone]}
    results["processes"] = measure(*settings)
    if importlib.util.find_spec("ray"):
        with Cluster("ray", cpus=1):
            results["ray"] = measure(*settings)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    for name, row in results.items():
        if "overhead_ms" in row:
            print(f"{name}: {row['overhead_ms']:.3f} ms per call, speedup {row.get('speedup', 1.0):.2f}")


if __name__ == "__main__":
    main()
