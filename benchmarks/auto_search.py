"""Run ``search auto`` beside its baselines, and look its cells up in NAS-Bench-201's table.

    python benchmarks/auto_search.py --name fashion --data fashion-mnist:FASHION --out runs/auto --minutes 6 \\
        --json benchmarks/results/auto_search.json
    python benchmarks/auto_search.py --name cifar10 --data folder:CIFAR --table cifar10 ...

Every row of the JSON is one run of ``automl-ext search auto``. Rows that are in the file are not repeated, and
interrupted runs are resumed. FASHION is a folder with the four files of Fashion-MNIST. CIFAR is a folder, or a zip
file, with one folder of images per class.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from automl_ext.nas.auto.auto import auto
from automl_ext.nas.auto.plan import AutoConfig
from automl_ext.nas.estimators.table import Table, place
from automl_ext.nas.spaces.nasbench201 import Genotype
from automl_ext.training.machine.environment import cpu_name

KEY = ("name", "space", "seed", "minutes", "subset", "baselines", "set")


def configuration(args: argparse.Namespace, seed: int) -> AutoConfig:
    return AutoConfig(
        space=args.space,
        data=args.data,
        subset=args.subset,
        seed=seed,
        device="cpu",
        shift=2,
        flip=True,
        minutes=args.minutes,
        baselines=args.baselines,
        **json.loads(args.set),
    )


def row_of(key: dict[str, Any], result: dict[str, Any], table: Table | None) -> dict[str, Any]:
    """Return the row of a finished run."""
    row: dict[str, Any] = {**key, "processor": cpu_name(), "source": result["source"], "stages": result["stages"]}
    row["rows"] = [{k: v for k, v in entry.items() if k != "members"} for entry in result["rows"]]
    if table is not None:
        row["table_test_accuracy"] = accuracy(table, result["genotype"])  # of the network that the search returns
        row["table_found"] = accuracy(table, result["rows"][0]["genotype"])  # of its best finalist
        row["table_largest"] = accuracy(table, named(result["rows"], "largest")["genotype"])
    return row


def accuracy(table: Table, genotype: str) -> float:
    """Return the test accuracy after 200 epochs, in percent."""
    return float(table.test_200[place(Genotype.parse(genotype))])


def named(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the entry of a name, or of "best of N random" for "random"."""
    if name == "random":
        return next(row for row in rows if row["name"].startswith("best of"))
    return next(row for row in rows if row["name"] == name)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per data set, space and budget: means over the seeds, differences with standard errors."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in KEY if name != "seed"), []).append(row)
    lines = []
    for mine in groups.values():
        first = mine[0]
        text = f"{first['name']} {first['space']} {first['minutes']:g} CPU-minutes, {len(mine)} seeds:"
        returned = [100 * named(row["rows"], row["source"])["test_accuracy"] for row in mine if row["baselines"]]
        if returned:
            text += f" returned {statistics.fmean(returned):.2f}"
            for name in ("found", "largest", "random", "ensemble"):
                values = [100 * named(row["rows"], name)["test_accuracy"] for row in mine]
                differences = [a - b for a, b in zip(returned, values, strict=True)]
                error = statistics.stdev(differences) / math.sqrt(len(mine)) if len(mine) > 1 else math.nan
                text += f", {name} {statistics.fmean(values):.2f} ({statistics.fmean(differences):+.2f} ± {error:.2f})"
        if "table_test_accuracy" in first:
            values = [row["table_test_accuracy"] for row in mine]
            text += f"; in the table {statistics.fmean(values):.2f} (lowest {min(values):.2f})"
        lines.append(text)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="name of the data set, for the rows")
    parser.add_argument("--data", required=True, help="fashion-mnist:PATH, folder:PATH, or digits to try the script")
    parser.add_argument("--space", default="nb201")
    parser.add_argument("--table", help="look cells up in this table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its rows are not repeated")
    parser.add_argument("--minutes", type=float, default=6.0, help="CPU-minutes of a search, without its baseline")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--subset", type=int, default=10_000, help="number of images")
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--set", default="{}", metavar="JSON", help="other configuration values, for all searches")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = None if args.table is None else Table.load(args.table)
    for seed in args.seeds:
        given = (args.name, args.space, seed, args.minutes, args.subset, args.baselines, args.set)
        key = dict(zip(KEY, given, strict=True))
        rows = read_rows(args.json)
        if any(all(row[name] == key[name] for name in KEY) for row in rows):
            continue
        folder = args.out / f"{args.name}-{args.space}-{args.minutes:g}m-{args.subset}" / f"seed-{seed}"
        result = auto(configuration(args, seed), folder, resume="auto")
        assert result is not None
        rows = sorted([*rows, row_of(key, result, table)], key=lambda row: [str(row[name]) for name in KEY])
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        print(rows, flush=True)
    for line in summary(read_rows(args.json)):
        print(line)


if __name__ == "__main__":
    main()
