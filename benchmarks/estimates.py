"""Compare estimates from shorter trainings with the table: ``python benchmarks/estimates.py --data folder:CIFAR``.

Random cells of NAS-Bench-201 are scored by trainings of ``--epochs`` epochs, of half of them, and by the evaluators
"curve" and "morphism", which replace a half. The scores are compared with the validation accuracies of the benchmark's
table after 200 epochs, and with those of the whole trainings, by Kendall's τ-b and Spearman's ρ. Intervals: 95 %,
bootstrap over cells. Cells that the JSON file has are not scored again.

CIFAR is a folder, or a zip file, with one folder of images per class.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from supernet_ranking import correlation, draw, looked_up

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.estimators.extrapolation import Extrapolation
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.estimators.widening import Widening
from automl_ext.nas.evaluation import Evaluator
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.training.machine.environment import cpu_name

SETTINGS = ("subset", "image_size", "channels", "epochs", "seed")


def evaluators(args: argparse.Namespace) -> dict[str, Evaluator]:
    splits = split_images(load_images(args.data, subset=args.subset, image_size=args.image_size))
    config = TrainingConfig(channels=args.channels, epochs=args.epochs, device="cpu")
    whole = LowerFidelity(config, splits)
    return {
        "train": whole,
        "train, half of the epochs": LowerFidelity(replace(config, epochs=args.epochs // 2), splits),
        "curve": Extrapolation(whole),
        "morphism": Widening(whole),
    }


def row_of(name: str, found: dict[str, dict[str, list[float]]], truth: Sequence[float]) -> dict[str, Any]:
    """Return the correlations and the cost of an evaluator. ``found``: cell → evaluator → score and CPU-seconds."""
    scores = [cell[name][0] for cell in found.values()]
    return {
        "evaluator": name,
        "cpu_seconds": round(statistics.fmean(cell[name][1] for cell in found.values()), 2),
        "table": correlation(scores, truth),
        "whole training": correlation(scores, [cell["train"][0] for cell in found.values()]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH, or digits to try the script")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--json", type=Path, required=True, help="file of the result; its cells are not scored again")
    parser.add_argument("--cells", type=int, default=22, help="number of random cells")
    parser.add_argument("--seed", type=int, default=0, help="seed for the random cells")
    parser.add_argument("--subset", type=int, default=2000, help="number of images")
    parser.add_argument("--image-size", default="16")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = {name: getattr(args, name) for name in SETTINGS}
    result: dict[str, Any] = {"settings": settings, "processor": cpu_name(), "cells": {}}
    if args.json.exists():
        stored = json.loads(args.json.read_text())
        if stored["settings"] != settings:
            parser.error(f"--json: {args.json} has the settings {stored['settings']}, expected {settings}")
        result = stored
    genotypes, found, made = draw(args.cells, args.seed), result["cells"], evaluators(args)
    for genotype in genotypes:
        if str(genotype) in found:
            continue
        scored = {name: evaluator.evaluate(genotype) for name, evaluator in made.items()}
        found[str(genotype)] = {name: [round(e.score, 4), round(e.cost, 3)] for name, e in scored.items()}
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{len(found)} of {args.cells} cells", flush=True)
    truth = looked_up(genotypes, args.table)
    result["rows"] = [row_of(name, {str(g): found[str(g)] for g in genotypes}, truth) for name in made]
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["rows"]:
        print(row)


if __name__ == "__main__":
    main()
