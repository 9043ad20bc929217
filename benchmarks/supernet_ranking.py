"""Compare a supernet's ranking of cells with the true one: ``python benchmarks/supernet_ranking.py [--json FILE]``.

A supernet of NAS-Bench-201 is trained with uniform sampling and scores random cells with its weights. The scores are
compared with the true accuracies by Kendall's τ-b and Spearman's ρ. The true accuracy of a cell is that of its separate
training for ``--train-epochs`` epochs. With ``--table cifar10`` and CIFAR-10 images (``--data``) it is the benchmark's
accuracy after 200 epochs instead.

As a baseline, cells are also ranked by their number of parameters, which costs nothing. Intervals: 95 %, bootstrap over
cells. A later run on the same data replaces the row in FILE.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from automl_ext.data.images import Splits, load_images, split_images
from automl_ext.nas.costs import count_parameters
from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.estimators.training_free.correlations import kendall, spearman
from automl_ext.nas.estimators.weight_sharing import UniformSupernet, WeightSharing
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.nas.training.training_options import TrainingConfig

SPACE = NASBench201()


def draw(count: int, seed: int) -> list[Genotype]:
    """Sample ``count`` different cells."""
    rng = Random(seed)
    drawn: dict[Genotype, None] = {}
    while len(drawn) < count:
        drawn[SPACE.random(rng)] = None
    return list(drawn)


def trained(genotypes: Sequence[Genotype], splits: Splits, config: TrainingConfig) -> list[float]:
    """Train each cell separately. Return the validation accuracies."""
    evaluator = LowerFidelity(config, splits)
    return [evaluator.evaluate(genotype).score for genotype in genotypes]


def looked_up(genotypes: Sequence[Genotype], table: str) -> list[float]:
    """Return the validation accuracies after 200 epochs from the benchmark's table."""
    accuracies = Table.load(table).valid_200
    return [float(accuracies[place(genotype)]) / 100 for genotype in genotypes]


def correlation(scores: Sequence[float], truth: Sequence[float]) -> dict[str, Any]:
    """Return the rank correlations, with a bootstrap interval for Kendall's τ-b."""
    a, b = np.array(scores), np.array(truth)
    rng = np.random.default_rng(0)
    draws = [kendall(a[i], b[i]) for i in rng.integers(len(a), size=(1000, len(a)))]
    interval = np.nanquantile(draws, [0.025, 0.975]).round(3).tolist()
    return {"kendall": round(kendall(a, b), 3), "interval": interval, "spearman": round(spearman(a, b), 3)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    splits = split_images(load_images(args.data, subset=args.subset))
    options = {"channels": args.channels, "epochs": args.supernet_epochs, "flip": args.flip, "shift": args.shift}
    config = TrainingConfig(lr=0.1, **options)
    supernet = UniformSupernet(config, SPACE, splits, torch.device("cpu"))
    if args.state and args.state.exists():
        supernet.load_state_dict(torch.load(args.state))
    while supernet.epoch < supernet.epochs:
        loss = supernet.run_epoch()["loss"]
        if args.state:
            torch.save(supernet.state_dict(), args.state)
        print(f"epoch {supernet.epoch}: loss {loss:.3f}, {supernet.clock.cpu:.0f} CPU-s", flush=True)
    genotypes = draw(args.cells, args.seed)
    evaluator = WeightSharing(supernet.supernet, splits)
    scores = [evaluator.evaluate(genotype).score for genotype in genotypes]
    row: dict[str, Any] = {
        "data": args.data.partition(":")[0] if args.table is None else "cifar10",
        "images": len(splits.train.labels),
        "cells": args.cells,
        "supernet": {"channels": args.channels, "epochs": args.supernet_epochs, "cpu_seconds": supernet.clock.cpu},
    }
    if args.table is None:
        truth = trained(genotypes, splits, TrainingConfig(epochs=args.train_epochs))
        row["truth"] = f"trained {args.train_epochs} epochs"
    else:
        truth = looked_up(genotypes, args.table)
        row["truth"] = "validation accuracy after 200 epochs, from the table"
    sizes = [count_parameters(SPACE.build(g, in_channels=3, num_classes=10, channels=16, cells=1)) for g in genotypes]
    row |= {"by_supernet": correlation(scores, truth), "by_parameters": correlation(sizes, truth)}
    row["best_by_supernet"] = truth[int(np.argmax(scores))]
    row["best"] = max(truth)
    row["mean"] = sum(truth) / len(truth)
    row["scores"] = {str(g): [round(s, 4), round(t, 4)] for g, s, t in zip(genotypes, scores, truth, strict=True)}
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--subset", type=int, help="number of images to use")
    parser.add_argument("--table", help="cifar10 or a file: the table of NAS-Bench-201, instead of training")
    parser.add_argument("--cells", type=int, default=20, help="number of random cells")
    parser.add_argument("--seed", type=int, default=0, help="seed for the random cells")
    parser.add_argument("--channels", type=int, default=4, help="channels of the supernet")
    parser.add_argument("--supernet-epochs", type=int, default=100)
    parser.add_argument("--train-epochs", type=int, default=10)
    parser.add_argument("--shift", type=int, default=1)
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--state", type=Path, help="store the supernet in this file, and continue from it")
    parser.add_argument("--json", type=Path, help="write the row to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    row = measure(args)
    print(json.dumps({key: value for key, value in row.items() if key != "scores"}, indent=2))
    if args.json:
        rows = json.loads(args.json.read_text()) if args.json.exists() else []
        rows = [*(r for r in rows if r["data"] != row["data"]), row]
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
