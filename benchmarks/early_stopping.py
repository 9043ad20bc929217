"""Measure the epochs saved by early stopping with learning curves.

    python benchmarks/early_stopping.py [--json FILE] [--curves FILE]

Random NAS-Bench-201 cells are trained to the end on the digits, their validation accuracy taken after every epoch
(``--curves`` keeps them; a run that was interrupted goes on). A search that meets the cells in a random order is then
replayed from these curves, many times: the epochs it saves, and whether it still ends with the best cell. Also how
often the 90 % interval of the prediction holds the last accuracy. Intervals of the search: 95 %, over orders.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from automl_ext.nas.estimators.early_stopping import EarlyStopping
from automl_ext.nas.estimators.learning_curve import Prediction, fit
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.retraining.training import TrainingConfig
from automl_ext.nas.spaces.nasbench201 import NASBench201

Curve = list[float]


class Recorded:
    """An Evaluator that knows the curves already; a genotype is the number of one."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = curves

    def evaluate(self, genotype: int, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        return Evaluation(self.curves[genotype][(budget or 0) - 1], cost=1.0, state={})


class Remembering(EarlyStopping):
    """The same, that predicts from a curve once for all orders."""

    def predict(self, curve: Curve) -> Prediction:
        return predict(tuple(curve), self.epochs)


@functools.cache
def predict(curve: tuple[float, ...], epoch: int) -> Prediction:
    return fit(curve).predict(epoch)


def record(count: int, epochs: int, channels: int, file: Path | None) -> list[Curve]:
    """The validation accuracy of ``count`` random cells after every epoch."""
    rows = json.loads(file.read_text()) if file and file.exists() else []
    evaluator = LowerFidelity(TrainingConfig(epochs=epochs, channels=channels))
    rng = Random(100)
    for i, genotype in enumerate(NASBench201().random(rng) for _ in range(count)):
        if i < len(rows):
            if (rows[i][0], len(rows[i][1])) != (str(genotype), epochs):
                raise SystemExit(f"{file} has curves of other cells or epochs")
            continue
        curve, state = [], None
        for epoch in range(1, epochs + 1):
            found = evaluator.evaluate(genotype, epoch, state)
            curve, state = [*curve, found.score], found.state
        rows.append([str(genotype), curve])
        if file:
            file.write_text(json.dumps(rows))
    return [row[1] for row in rows[:count]]


def replay(curves: Sequence[Curve], orders: int, min_epochs: int) -> dict[str, Any]:
    epochs, best = len(curves[0]), max(curve[-1] for curve in curves)
    saved, kept, lost = [], [], []
    for seed in range(orders):
        search = Remembering(Recorded(curves), epochs, min_epochs=min_epochs)
        for i in Random(seed).sample(range(len(curves)), len(curves)):
            search.evaluate(i)
        saved.append(search.epochs_saved / (len(curves) * epochs))
        kept.append(search.best == best)
        lost.append(best - search.best)
    return {
        "min_epochs": min_epochs,
        "epochs_saved": float(np.mean(saved)),
        "epochs_saved_interval": np.quantile(saved, [0.025, 0.975]).tolist(),
        "best_kept": float(np.mean(kept)),
        "accuracy_lost_mean": float(np.mean(lost)),
        "accuracy_lost_max": float(np.max(lost)),
    }


def calibration(curves: Sequence[Curve], seen: int) -> dict[str, float]:
    """Of the prediction of the last epoch from the first ``seen``."""
    last = np.array([curve[-1] for curve in curves])
    predictions = [fit(curve[:seen]).predict(len(curve)) for curve in curves]
    low, high = (np.array([p.quantile(q) for p in predictions]) for q in (0.05, 0.95))
    means = np.array([p.mean for p in predictions])
    return {
        "seen": seen,
        "coverage_90": float(((low <= last) & (last <= high)).mean()),
        "width": float((high - low).mean()),
        "bias": float((means - last).mean()),
        "mean_error": float(np.abs(means - last).mean()),
        "mean_error_of_last_seen": float(np.abs([curve[seen - 1] - curve[-1] for curve in curves]).mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20, help="drawn")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument("--curves", type=Path, help="keep the curves here")
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    curves = record(args.cells, args.epochs, args.channels, args.curves)
    result: dict[str, Any] = {"data": "digits", "cells": len(curves), "epochs": args.epochs, "channels": args.channels}
    result["searches"] = [replay(curves, args.orders, least) for least in (5, 10)]
    result["prediction"] = [calibration(curves, seen) for seen in (3, 5, 10, 20) if seen < args.epochs]
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
