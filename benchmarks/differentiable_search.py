"""Ablation of the switches against collapse: differentiable searches on CIFAR-10 images at equal CPU time.

    python benchmarks/differentiable_search.py --data folder:CIFAR \\
        --out runs/differentiable --json benchmarks/results/differentiable_search.json --minutes 30 --seeds 0 1 2 3 4

Every row is one search: an algorithm, a variant (the algorithm as published with one switch on, or a recipe) and a
seed. Before the first seed of a row, a short calibration measures the CPU time of an epoch, and the number of epochs is
chosen such that search and derivation take ``--minutes`` of CPU time. Rows that are in the JSON file are not repeated,
and interrupted searches are resumed, so the command can be stopped and started again. Several processes may share the
work by ``--algorithms``, ``--variants`` and ``--seeds``. The found cell is looked up in NAS-Bench-201's table.

CIFAR is a folder, or a zip file, with one folder of images per class.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from automl_ext.data.images import Split, Splits, load_images, split_images
from automl_ext.nas.differentiable import darts, entmax_gdas, gdas
from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.perturbation import IMAGES, Perturbation
from automl_ext.nas.differentiable.recipes import with_recipe
from automl_ext.nas.differentiable.samplers import Sampler, sample, sample_entmax, softmax_weights
from automl_ext.nas.differentiable.supernet_search import SupernetSearch
from automl_ext.nas.estimators.table import Table, place
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.training.config import to_dict


class Algorithm(NamedTuple):
    config: type[SupernetConfig]
    search: Callable[..., dict[str, Any] | None]
    sample: Sampler


ALGORITHMS = {
    "darts": Algorithm(darts.DARTSConfig, darts.search, softmax_weights),
    "gdas": Algorithm(gdas.GDASConfig, gdas.search, sample),
    "entmax-gdas": Algorithm(entmax_gdas.EntmaxGDASConfig, entmax_gdas.search, sample_entmax),
}
# Variants: changes to the algorithm as published. "robust" is the recipe of this name.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "no-none": {"none": False},
    "beta-decay": {"beta_decay": 50.0},
    "fair-warmup": {"warmup": 0.5, "fair_warmup": True},
    "partial-channels": {"partial_channels": 4},
    "stop-skip": {"stop_skip": 0.25},
    "perturbation": {"derive": "perturbation"},
    "fixed-alpha": {"derive": "perturbation", "warmup": 1.0},
    "robust": {},
}
KEY = ("algorithm", "variant", "seed", "minutes", "subset", "channels", "set")
CALIBRATION_STEPS, CALIBRATION_EPOCHS = 6, (0, 20, 40, 60, 80, 99)


def configuration(algorithm: str, variant: str, seed: int, epochs: int, args: argparse.Namespace) -> SupernetConfig:
    """Return the configuration of one search; the final training is as short as possible, the table replaces it."""
    config = ALGORITHMS[algorithm].config(
        data=args.data,
        subset=args.subset,
        seed=seed,
        device="cpu",
        channels=args.channels,
        epochs=epochs,
        shift=2,
        flip=True,
        retrain_epochs=1,
        retrain_channels=1,
    )
    if variant == "robust":
        config = with_recipe("robust", config)
    return replace(config, **{**VARIANTS[variant], **json.loads(args.set)})


def choose_epochs(config: SupernetConfig, sample: Sampler, splits: Splits, seconds: float) -> int:
    """Return the number of epochs with which a search takes ``seconds`` of CPU time, from a short measurement."""
    images = 2 * CALIBRATION_STEPS * config.batch_size
    small = replace(splits, train=Split(splits.train.images[:images], splits.train.labels[:images]))
    steps, few = (max(len(part.train.labels) // 2 // config.batch_size, 1) for part in (splits, small))
    short = replace(config, epochs=CALIBRATION_EPOCHS[-1] + 1)
    job = SupernetSearch(short, NASBench201(), small, torch.device("cpu"), sample)
    job.run_epoch()  # allocates memory
    start = time.process_time()
    for job.epoch in CALIBRATION_EPOCHS:
        job.run_epoch()
    per_step = (time.process_time() - start) / (few * len(CALIBRATION_EPOCHS))
    derivation = 0.0
    if config.derive == "perturbation":
        derivation = derivation_seconds(job, steps / few)
    return max(int((seconds - derivation) / (per_step * steps)), 1)


def derivation_seconds(job: SupernetSearch, longer: float) -> float:
    """Return the CPU time of a derivation by perturbation, from one whose epochs are shorter by this factor."""
    spent, config = [], job.config
    for tune_epochs in (0, 1):
        job.config = replace(config, tune_epochs=tune_epochs, orders=1)
        derivation = Perturbation(job)
        start = time.process_time()
        while derivation.epoch < derivation.epochs:
            derivation.run_epoch()
        spent.append(time.process_time() - start)
    deciding, tuning = spent[0], max(spent[1] - spent[0], 0.0)
    deciding *= config.orders * IMAGES / len(derivation.images.labels)
    return deciding + tuning * config.tune_epochs * longer


def read_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to the JSON file, which other processes may write too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = [*read_rows(path), row]
        rows.sort(key=lambda r: [str(r[name]) for name in KEY])
        temporary = path.with_suffix(".tmp")
        temporary.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        temporary.replace(path)
    path.with_suffix(".lock").unlink(missing_ok=True)


def measured(key: dict[str, Any], result: dict[str, Any], config: SupernetConfig, table: Table, folder: Path):
    """Return the row of a finished search."""
    operations = NASBench201().parse(result["genotype"]).operations
    accuracy = float(table.test_200[place(NASBench201().parse(result["genotype"]))])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        **key,
        "genotype": result["genotype"],
        "table_test_accuracy": accuracy,
        "cells_of_table_above": round(float((table.test_200 > accuracy).mean()), 4),
        # the baseline without a search
        "table_3x3_everywhere": float(table.test_200[place(NASBench201().decode([3] * 6))]),
        "share_none": round(operations.count("none") / 6, 3),
        "share_skip": round(operations.count("skip_connect") / 6, 3),
        "search_cpu_seconds": round(result["times"]["search_cpu_seconds"], 2),
        "search_epochs": sum("search_loss" in line for line in lines),
        "config": {k: v for k, v in to_dict(config).items() if k != "data" and not k.startswith("retrain")},
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per algorithm, variant and budget."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in KEY if name != "seed"), []).append(row)
    lines = []
    for mine in groups.values():
        accuracies = [row["table_test_accuracy"] for row in mine]
        bad = statistics.fmean(row["share_none"] + row["share_skip"] for row in mine)
        minutes = statistics.fmean(row["search_cpu_seconds"] for row in mine) / 60
        lines.append(
            f"{mine[0]['algorithm']:12} {mine[0]['variant']:17} mean {statistics.fmean(accuracies):.2f}, "
            f"lowest {min(accuracies):.2f}, none + skip {bad:.2f}, {len(mine)} seeds, {minutes:.1f} CPU-minutes"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH, or digits to try the script")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its rows are not repeated")
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU-minutes of a search")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--subset", type=int, default=10_000, help="number of images")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--set", default="{}", metavar="JSON", help="other configuration values, for all searches")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table.load(args.table)
    splits = None
    for seed in args.seeds:
        for variant in args.variants:
            for algorithm in args.algorithms:
                given = (algorithm, variant, seed, args.minutes, args.subset, args.channels, args.set)
                key = dict(zip(KEY, given, strict=True))
                if any(all(row[name] == key[name] for name in KEY) for row in read_rows(args.json)):
                    continue
                splits = splits or split_images(load_images(args.data, subset=args.subset))
                epochs = stored_epochs(args, key, splits)
                config = configuration(algorithm, variant, seed, epochs, args)
                folder = args.out / run_name(key) / f"seed-{seed}"
                result = ALGORITHMS[algorithm].search(config, folder, resume="auto")
                assert result is not None
                row = measured(key, result, config, table, folder)
                add_row(args.json, row)
                print({k: v for k, v in row.items() if k != "config"}, flush=True)
    for line in summary(read_rows(args.json)):
        print(line)


def run_name(key: dict[str, Any]) -> str:
    options = "".join(c if c.isalnum() else "-" for c in key["set"])
    return f"{key['algorithm']}-{key['variant']}-{key['minutes']:g}m-{key['subset']}-c{key['channels']}{options}"


def stored_epochs(args: argparse.Namespace, key: dict[str, Any], splits: Splits) -> int:
    """Return the number of epochs of a row, measured once for all seeds."""
    path = args.out / run_name(key) / "epochs.json"
    if not path.exists():
        config = configuration(key["algorithm"], key["variant"], 0, 100, args)
        epochs = choose_epochs(config, ALGORITHMS[key["algorithm"]].sample, splits, 60 * args.minutes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(epochs))
    return int(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
