"""Run GDAS, entmax-GDAS and DARTS on CIFAR-10, and look up the cells they find in NAS-Bench-201's table.

    python benchmarks/gdas_cifar.py --data folder:CIFAR --out runs/gdas-cifar \\
        --json benchmarks/results/gdas_cifar.json

All searches have the same number of steps; for equal seeds they have the same images. They are runs of ``automl-ext
search``, and interrupted runs are resumed. ``--algorithms`` and ``--seeds`` divide them among processes; the last
process to finish writes the complete report. CIFAR is a folder, or a zip file, with one folder of images per class.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from automl_ext.nas.differentiable import darts as darts_search
from automl_ext.nas.differentiable import entmax_gdas, gdas
from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.estimators.table import Table, place
from automl_ext.nas.spaces.nasbench201 import Genotype

SEARCHES: dict[str, tuple[type[SupernetConfig], Callable[..., dict[str, Any] | None]]] = {
    "gdas": (gdas.GDASConfig, gdas.search),
    "entmax-gdas": (entmax_gdas.EntmaxGDASConfig, entmax_gdas.search),
    "darts": (darts_search.DARTSConfig, darts_search.search),
}


def run(name: str, args: argparse.Namespace, seed: int) -> None:
    """Run or resume one search."""
    make, search = SEARCHES[name]
    config = make(
        data=args.data,
        subset=args.subset,
        seed=seed,
        device="cpu",
        channels=args.channels,
        cells=1,
        epochs=args.epochs,
        shift=2,
        flip=True,
        retrain_epochs=1,  # the table has the accuracy of the cell
        retrain_channels=1,
        **json.loads(args.set),
    )
    search(config, args.out / f"{name}-{seed}", resume="auto")


def measured(name: str, seed: int, args: argparse.Namespace, table: Table) -> dict[str, Any] | None:
    """Return a row of the report, or None if the search is not finished."""
    folder = args.out / f"{name}-{seed}"
    if not (folder / "result.json").is_file():
        return None
    result = json.loads((folder / "result.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][: config["epochs"]]
    half = round(config["subset"] * 0.6) // 2  # training images for the weights; as many are for α
    steps = max(half // config["batch_size"], 1) * config["epochs"]
    accuracy = float(table.test_200[place(Genotype.parse(result["genotype"]))])
    return {
        "search": name,
        "seed": seed,
        "genotype": result["genotype"],
        "table_test_accuracy": accuracy,
        "cells_of_table_above": float((table.test_200 > accuracy).mean()),
        "share_skip": epochs[-1]["search_share_skip"],
        "share_none": epochs[-1]["search_share_none"],
        "operations_per_edge": statistics.fmean(epoch["search_support"] for epoch in epochs),
        "steps": steps,
        "cpu_seconds_per_step": result["times"]["search_cpu_seconds"] / steps,
        "config": {k: v for k, v in config.items() if k != "data"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, help="write the report to this file")
    parser.add_argument("--algorithms", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--subset", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--set", default="{}", metavar="JSON", help="other configuration values, for all searches")
    args = parser.parse_args()
    table = Table.load(args.table)
    for seed in args.seeds:
        for name in args.algorithms:
            run(name, args, seed)
    pairs = [(name, seed) for name in SEARCHES for seed in range(10)]
    rows = [row for name, seed in pairs if (row := measured(name, seed, args, table)) is not None]
    for row in rows:
        print({k: v for k, v in row.items() if k != "config"})
    for name in args.algorithms:
        found = [row["table_test_accuracy"] for row in rows if row["search"] == name]
        print(f"{name}: {statistics.fmean(found):.2f} ± {statistics.stdev(found) if len(found) > 1 else 0:.2f} %")
    print(f"a random cell: {table.test_200.mean():.2f} %, median {statistics.median(table.test_200):.2f} %")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
