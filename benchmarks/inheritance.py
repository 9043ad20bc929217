"""Evolution with and without inherited weights, beside random search, at equal CPU time, on CIFAR-10 images.

    python benchmarks/inheritance.py --data folder:CIFAR --out runs/inheritance \\
        --json benchmarks/results/inheritance.json

Every row is one command of ``SEARCHES`` and a seed, with ``--minutes`` of CPU time as the budget, which contains the
final trainings, and otherwise the default options. All searches with a population have the same size of it. The found
cell is looked up in NAS-Bench-201's table. Rows that are in the JSON file are not repeated, and interrupted searches
are resumed, so the command can be stopped and started again.

CIFAR is a folder, or a zip file, with one folder of images per class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from differentiable_search import Row, add_row, found_cell, read_rows, same

from automl_ext.nas.estimators.benchmark_table import Table
from automl_ext.nas.search.search import search
from automl_ext.nas.strategies.evolution import EvolutionConfig
from automl_ext.nas.strategies.random_search import RandomConfig
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.nas.strategies.search_options import SearchConfig
from automl_ext.training.machine.environment import cpu_name

POPULATION = {"population": 10, "sample": 3}  # the default of rea; 15 minutes are too few for the 30 of renas
SEARCHES: dict[str, tuple[type[SearchConfig], dict[str, Any]]] = {
    "renas": (ReNASConfig, {}),
    "rea --inherit": (EvolutionConfig, {"inherit": True}),
    "rea": (EvolutionConfig, {}),
    "random": (RandomConfig, {}),
}
KEY = ("search", "seed", "minutes", "subset")


def command(name: str, options: dict[str, Any]) -> str:
    """Return the command line of a search, with a placeholder for the path of the images."""
    kind, colon, _ = options["data"].partition(":")
    shown = {**options, "data": f"{kind}:CIFAR" if colon else kind}
    words = [f"--{key} {value}" for key, value in shown.items() if not isinstance(value, bool)]
    return " ".join(["automl-ext search", name, *words])


def row_of(key: Row, options: dict[str, Any], result: dict[str, Any], table: Table) -> Row:
    """Return the row of a finished search."""
    finalists = len(result.get("finalists", []))
    return {
        **key,
        "command": command(key["search"], options),
        "processor": cpu_name(),
        "cpu_seconds": round(result["times"]["search_cpu_seconds"], 1),
        "evaluated": result["evaluations"] - finalists,  # cells before the final trainings
        "finalists": finalists,
        "validation_accuracy": result["score"],
        **found_cell(result["genotype"], table),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH, or digits to try the script")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its rows are not repeated")
    parser.add_argument("--minutes", type=float, default=15.0, help="CPU-minutes of a search")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--subset", type=int, default=10_000, help="number of images")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table.load(args.table)
    for seed in args.seeds:
        for name in args.searches:
            key = dict(zip(KEY, (name, seed, args.minutes, args.subset), strict=True))
            if any(same(row, key, KEY) for row in read_rows(args.json)):
                continue
            make, own = SEARCHES[name]
            common = {"data": args.data, "subset": args.subset, "budget": 60 * args.minutes, "seed": seed}
            population = POPULATION if issubclass(make, EvolutionConfig) else {}
            options = {**common, **population, **own, "device": "cpu"}
            run = args.out / f"{name.replace(' --', '-')}-{args.minutes:g}m-{args.subset}-seed-{seed}"
            result = search(name.split()[0], make(**options), run, resume="auto")
            assert result is not None
            row = row_of(key, options, result, table)
            add_row(args.json, row, KEY)
            print(row, flush=True)


if __name__ == "__main__":
    main()
