"""Searches over a supernet beside random search, each within a budget of CPU time, on CIFAR-10 images.

    python benchmarks/differentiable_search.py --data folder:CIFAR --out runs/differentiable \\
        --json benchmarks/results/differentiable_search.json --seconds 150 --searches darts entmax-gdas gdas random
    python benchmarks/differentiable_search.py --data folder:CIFAR --out runs/differentiable \\
        --json benchmarks/results/differentiable_search.json --seconds 480 --seeds 0 1 2 3

Every row is one search and a seed, with mirrored images, shifts of up to two pixels, and otherwise the default options
of its command. Search and derivation take ``--seconds`` of CPU time: random search has a budget, and the number of
epochs of the others follows from a short calibration before the first seed, and from the time of the seed before. A row
whose time differs from ``--seconds`` by more than 5 % is repeated at the next start, and replaced. Other rows that are
in the JSON file are not repeated, and interrupted searches are resumed, so the command can be stopped and started
again. Several processes may share the work by ``--searches`` and ``--seeds``. The found cell is looked up in
NAS-Bench-201's table.

CIFAR is a folder, or a zip file, with one folder of images per class.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from automl_ext.data.images import Split, Splits, load_images, split_images
from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.search.search import search as search_by_strategy
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.strategies.random_search import RandomConfig
from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.loop import SupernetSearch
from automl_ext.nas.supernets.perturbation import IMAGES, Perturbation, PerturbationConfig
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.nas.supernets.supernet_options import SupernetConfig
from automl_ext.training.config import to_dict
from automl_ext.training.machine.environment import cpu_name

CONFIGS: tuple[type[SupernetConfig], ...] = (GDASConfig, EntmaxGDASConfig, DARTSConfig, PerturbationConfig)
SEARCHES = {config.name: config for config in CONFIGS}
Row = dict[str, Any]
KEY = ("search", "seed", "seconds", "subset", "channels", "set")
GROUP = tuple(name for name in KEY if name != "seed")
CALIBRATION_STEPS, CALIBRATION_EPOCHS = 6, (0, 20, 40, 60, 80, 99)
TOLERANCE = 0.05  # largest difference of a row's time from the budget, as a part of the budget


def configuration(name: str, seed: int, length: int, args: argparse.Namespace) -> SupernetConfig | RandomConfig:
    """Return the configuration of one search of ``length`` epochs, or of random search within the budget."""
    common = {"data": args.data, "subset": args.subset, "seed": seed, "device": "cpu", "channels": args.channels}
    common |= {"shift": 2, "flip": True}
    if name == "random":
        config: Any = RandomConfig(**common, budget=args.seconds)
    else:  # the final training is as short as possible: the table replaces it
        config = SEARCHES[name](**common, epochs=length, retrain_epochs=1, retrain_channels=1)
    return replace(config, **json.loads(args.set))


def calibrate(name: str, args: argparse.Namespace, splits: Splits) -> dict[str, float]:
    """Measure the CPU-seconds of an epoch of a search over a supernet, and of its derivation."""
    config = configuration(name, 0, CALIBRATION_EPOCHS[-1] + 1, args)
    images = 2 * CALIBRATION_STEPS * config.batch_size
    small = replace(splits, train=Split(splits.train.images[:images], splits.train.labels[:images]))
    steps, few = (max(len(part.train.labels) // 2 // config.batch_size, 1) for part in (splits, small))
    job = SupernetSearch(config, NASBench201(), small, torch.device("cpu"))
    job.run_epoch()  # allocates memory
    start = job.clock.cpu
    for job.epoch in CALIBRATION_EPOCHS:
        job.run_epoch()
    epoch = (job.clock.cpu - start) * steps / (few * len(CALIBRATION_EPOCHS))
    return {"epoch": epoch, "derivation": derivation_seconds(job, config) if name == "perturbation" else 0.0}


def derivation_seconds(job: SupernetSearch, config: Any) -> float:
    """Return the CPU time of a derivation by perturbation, from one with fewer images."""
    derivation = Perturbation(job)
    start = job.clock.cpu
    while derivation.epoch < derivation.decisions:  # one of its orders
        derivation.run_epoch()
    return (job.clock.cpu - start) * config.orders * IMAGES / len(derivation.images.labels)


def choose_length(name: str, args: argparse.Namespace, splits: Splits, folder: Path, rows: Sequence[Row]) -> int:
    """Return the number of epochs for which a search takes ``args.seconds``.

    It is that of the last of ``rows``, changed by what this row took too long or too short; for the first one it
    follows from the calibration, which ``folder`` keeps.
    """
    path = folder / "calibration.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(calibrate(name, args, splits)))
    seconds = json.loads(path.read_text())
    epochs, spent = 0, seconds["derivation"]
    if rows:
        epochs, spent = rows[-1]["config"]["epochs"], rows[-1]["search_cpu_seconds"]
    return max(epochs + round((args.seconds - spent) / seconds["epoch"]), 1)


def read_rows(path: Path) -> list[Row]:
    return json.loads(path.read_text()) if path.exists() else []


def add_row(path: Path, row: Row, key: Sequence[str] = KEY) -> None:
    """Add a row to the JSON file, which other processes may write too. It replaces one with the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = [*(r for r in read_rows(path) if not same(r, row, key)), row]
        rows.sort(key=lambda r: [str(r[name]) for name in key])
        temporary = path.with_suffix(".tmp")
        temporary.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        temporary.replace(path)
    path.with_suffix(".lock").unlink(missing_ok=True)


def same(one: Row, other: Row, key: Sequence[str]) -> bool:
    return all(one[name] == other[name] for name in key)


def at_budget(row: Row) -> bool:
    return abs(row["search_cpu_seconds"] / row["seconds"] - 1) <= TOLERANCE


def found_cell(genotype: str, table: Table) -> Row:
    """Return a cell, its accuracy in the table, and the part of the space that is better."""
    accuracy = float(table.test_200[place(NASBench201().parse(genotype))])
    above = round(float((table.test_200 > accuracy).mean()), 4)
    return {"genotype": genotype, "table_test_accuracy": accuracy, "cells_of_table_above": above}


def measured(key: Row, result: dict[str, Any], config: Any, table: Table) -> Row:
    """Return the row of a finished search."""
    operations = NASBench201().parse(result["genotype"]).operations
    return {
        **key,
        "processor": cpu_name(),
        **found_cell(result["genotype"], table),
        # the baseline without a search
        "table_3x3_everywhere": float(table.test_200[place(NASBench201().decode([3] * 6))]),
        "share_none": round(operations.count("none") / 6, 3),
        "share_skip": round(operations.count("skip_connect") / 6, 3),
        "search_cpu_seconds": round(result["times"]["search_cpu_seconds"], 2),
        "config": {k: v for k, v in to_dict(config).items() if k != "data" and not k.startswith("retrain")},
    }


def summary(rows: Sequence[Row]) -> list[str]:
    """Return one line per search and budget."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    lines = []
    for mine in groups.values():
        accuracies = [row["table_test_accuracy"] for row in mine]
        seconds = statistics.fmean(row["search_cpu_seconds"] for row in mine)
        away = ", ".join(str(row["seed"]) for row in mine if not at_budget(row))
        lines.append(
            f"{mine[0]['search']:12} mean {statistics.fmean(accuracies):.2f}, lowest {min(accuracies):.2f}, "
            f"{len(mine)} seeds, {seconds:.0f} of {mine[0]['seconds']:g} CPU-seconds"
            + (f"; more than {TOLERANCE:.0%} away: seeds {away}" if away else "")
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH, or digits to try the script")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its rows are not repeated")
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU-seconds of a search")
    parser.add_argument("--searches", nargs="+", choices=[*SEARCHES, "random"], default=[*SEARCHES, "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--subset", type=int, default=10_000, help="number of images")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--set", default="{}", metavar="JSON", help="other configuration values, for all searches")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table.load(args.table)
    splits = None
    for seed in args.seeds:
        for name in args.searches:
            given = (name, seed, args.seconds, args.subset, args.channels, args.set)
            key = dict(zip(KEY, given, strict=True))
            rows = read_rows(args.json)
            if any(same(row, key, KEY) and at_budget(row) for row in rows):
                continue
            folder = args.out / run_name(key)
            if name == "random":
                config = configuration(name, seed, 0, args)
                result = search_by_strategy(name, config, folder / f"seed-{seed}", resume="auto")
            else:
                splits = splits or split_images(load_images(args.data, subset=args.subset))
                # Rows whose runs are elsewhere may be of another machine.
                before = [row for row in rows if same(row, key, GROUP) and run_of(folder, row).exists()]
                length = unfinished(folder, seed) or choose_length(name, args, splits, folder, before)
                config = configuration(name, seed, length, args)
                result = search_supernet(config, folder / f"seed-{seed}-{length}", resume="auto")
            row = measured(key, result, config, table)
            add_row(args.json, row)
            print({k: v for k, v in row.items() if k != "config"}, flush=True)
    for line in summary(read_rows(args.json)):
        print(line)


def run_name(key: dict[str, Any]) -> str:
    options = "".join(c if c.isalnum() else "-" for c in key["set"])
    return f"{key['search']}-{key['seconds']:g}s-{key['subset']}-c{key['channels']}{options}"


def run_of(folder: Path, row: Row) -> Path:
    return folder / f"seed-{row['seed']}-{row['config']['epochs']}"


def unfinished(folder: Path, seed: int) -> int | None:
    """Return the number of epochs of a search that was interrupted, or None."""
    runs = [run for run in folder.glob(f"seed-{seed}-*") if not (run / "result.json").exists()]
    return int(runs[0].name.rpartition("-")[2]) if runs else None


if __name__ == "__main__":
    main()
