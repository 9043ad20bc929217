"""Strategies with and without screening: ``python benchmarks/nas_screening.py SCORES --out DIR [--json FILE]``.

SCORES is the ``scores.csv`` of ``automl-ext score --all``. Runs ``automl-ext
nas-bench`` for each row of ``ROWS`` below, and collects the results. The scores of a cell are charged as many simulated
seconds as the CPU-seconds that they took; the file holds these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from automl_ext.nas.benchmarks.nats_bench import NASBenchConfig, nas_bench

PLAIN = ("random", "reinforce", "rea", "renas", "renas-history")
SCREENED = ("random+screen", "rea+screen", "renas+screen", "renas-history+screen")  # reinforce takes no candidates
# budget in simulated seconds, runs, screened cells, population, sample
ROWS = [
    (500.0, 1000, 1000, 5, 3),
    (2_000.0, 1000, 2000, 10, 5),
    (20_000.0, 1000, 2000, 30, 10),
]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; finished ones are not repeated")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(arguments)
    base = NASBenchConfig(table=args.table, scores=args.scores, algorithms=PLAIN + SCREENED, workers=args.workers)
    rows = []
    for budget, runs, screen, population, sample in ROWS:
        config = replace(base, budget=budget, runs=runs, screen=screen, population=population, sample=sample)
        out = args.out / f"{budget:.0f}"
        done = out / "result.json"
        result = json.loads(done.read_text()) if done.exists() else nas_bench(config, out, resume="auto")
        settings = {"budget": budget, "runs": runs, "screen": screen, "population": population, "sample": sample}
        rows.append(settings | {"algorithms": result})
    if args.json:
        args.json.write_text(json.dumps({"seed": base.seed, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
