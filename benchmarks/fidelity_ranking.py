"""Correlate accuracies after 12 and after 200 epochs: ``python benchmarks/fidelity_ranking.py TABLE [--json FILE]``.

Rank correlation, over the cells of NAS-Bench-201 on CIFAR-10, of the validation accuracy after 12 epochs (a training of
its own, with the whole fall of the learning rate) with that after 200: over all cells, over the best tenth by 200
epochs (does it tell good ones apart?) and over the best tenth by 12 (would it, among what a search keeps?). TABLE is
the benchmark's, .csv.gz, or what the environment variable AUTOML_EXT_NB201 names.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automl_ext.nas.estimators.rank_correlation import kendall, spearman


def read(table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Validation accuracies in per cent after 12 and after 200 epochs: [cells] each."""
    with gzip.open(table, "rt") as file:
        rows = [(row["cifar10_val_12ep"], row["cifar10_val_200ep"]) for row in csv.DictReader(file)]
    short, long = np.array(rows, dtype=np.float64).T
    return short, long


def best(scores: np.ndarray, share: float) -> np.ndarray:
    """Which are among the best, [n] bool, ties with the last one too."""
    return scores >= np.sort(scores)[-round(share * len(scores))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path, default=os.environ.get("AUTOML_EXT_NB201"))
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args(arguments)
    if args.table is None:
        parser.error("TABLE or the environment variable AUTOML_EXT_NB201 is needed")
    short, long = read(Path(args.table))
    parts = {
        "all": np.full(len(short), True),
        "best tenth after 200 epochs": best(long, 0.1),
        "best tenth after 12 epochs": best(short, 0.1),
    }
    rows = []
    for name, part in parts.items():
        x, y = short[part], long[part]
        rows.append({"cells": name, "n": len(x), "kendall": kendall(x, y), "spearman": spearman(x, y)})
        print(f"{name}: n {len(x)}, Kendall {rows[-1]['kendall']:.3f}, Spearman {rows[-1]['spearman']:.3f}")
    chosen = long[short.argmax()]
    print(f"after 200 epochs: best {long.max():.2f} %, best after 12 {chosen:.2f} %, mean {long.mean():.2f} %")
    if args.json:
        best_of = {"best": long.max(), "best_after_12": chosen, "mean": long.mean()}
        args.json.write_text(json.dumps({"rows": rows, "accuracy_after_200": best_of}, indent=1) + "\n")


if __name__ == "__main__":
    main()
