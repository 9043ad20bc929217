"""Measure the epochs saved by early stopping with learning curves.

    python benchmarks/early_stopping.py [--json FILE] [--curves FILE]

Random NAS-Bench-201 cells are trained to the end on the digits, and their validation accuracy is recorded after every
epoch. ``--curves`` stores these learning curves; an interrupted run continues from them.

A search that evaluates the cells in a random order is then simulated from the curves, for many orders. The report has
the share of epochs saved, with a 95 % interval over orders, and how often the search still finds the best cell. It also
has the coverage of the 90 % prediction interval for the final accuracy.
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
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.training.training_options import TrainingConfig

Curve = list[float]


class Recorded:
    """An Evaluator that replays recorded curves; a genotype is the index of a curve."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = curves

    def evaluate(self, genotype: int, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        return Evaluation(self.curves[genotype][(budget or 0) - 1], cost=1.0, state={})


class CachedEarlyStopping(EarlyStopping):
    """Early stopping with cached predictions, because the same curves occur in every order."""

    def predict(self, curve: Curve) -> Prediction:
        return predict(tuple(curve), self.epochs)


@functools.cache
def predict(curve: tuple[float, ...], epoch: int) -> Prediction:
    return fit(curve).predict(epoch)


def record(count: int, epochs: int, channels: int, file: Path | None) -> list[Curve]:
    """Train ``count`` random cells. Return their validation accuracies after every epoch.

    Curves that ``file`` already has are read from it, and new ones are added.
    """
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
    """Simulate searches with early stopping, one for each random order of the curves. Return statistics over orders."""
    epochs, best = len(curves[0]), max(curve[-1] for curve in curves)
    saved, kept, lost = [], [], []
    for seed in range(orders):
        search = CachedEarlyStopping(Recorded(curves), epochs, min_epochs=min_epochs)
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
    """Compute coverage and errors of predictions of the last epoch from the first ``seen`` epochs."""
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
    parser.add_argument("--cells", type=int, default=20, help="number of random cells")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument("--curves", type=Path, help="store the curves in this file")
    parser.add_argument("--json", type=Path, help="write the result to this file")
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
