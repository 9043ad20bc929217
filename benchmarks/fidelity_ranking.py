"""Correlate accuracies after 12 and after 200 epochs: ``python benchmarks/fidelity_ranking.py [--json FILE]``.

Computes rank correlations of the validation accuracies of NAS-Bench-201's cells on CIFAR-10 after 12 and after 200
epochs. The 12 epochs are a separate training with a complete learning-rate schedule. There are three sets of cells: all
cells; the best tenth after 200 epochs, to see whether 12 epochs distinguish good cells; and the best tenth after 12
epochs, to see whether they distinguish the cells that a search would keep.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automl_ext.nas.estimators.benchmark_table import Table
from automl_ext.nas.estimators.training_free.correlations import kendall, spearman


def best(scores: np.ndarray, share: float) -> np.ndarray:
    """Return a mask of the best ``share``, with ties, bool [n]."""
    return scores >= np.sort(scores)[-round(share * len(scores))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="cifar10", help="cifar10 (part of the package) or a file")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(arguments)
    table = Table.load(args.table)
    short, long = table.valid_12, table.valid_200
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
