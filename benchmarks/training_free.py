"""Compare training-free scores with the table: ``python benchmarks/training_free.py DATA RUN... [--json FILE]``.

Each RUN is the run directory of ``automl-ext score --data DATA``, with ``--all``
or ``--random N``. For every score of a run and every combination in ``COMBINATIONS``, the script computes Spearman's ρ
and Kendall's τ with the test accuracy on CIFAR-10 after 200 epochs, with 95 % bootstrap intervals over cells; the test
accuracy of the best cell by that score; and, of its 20 best cells, that of the best one after 12 epochs of training. It
measures the CPU-seconds of every score on 40 cells, in one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.estimators.training_free.correlations import kendall, log_rank_sum, spearman
from automl_ext.nas.estimators.training_free.scores import RANK, score_network
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.training.machine.device import choose_device

RESAMPLES, TIMED = 100, 40
COMBINATIONS = {
    "combined rank": RANK,
    "combined rank, expressivity": (*RANK, "expressivity"),
    "combined rank, parameters": (*RANK, "parameters"),
    "naswot, synflow, parameters": ("naswot", "synflow", "parameters"),
}


def compare(score: NDArray[np.float64], table: Table, cells: NDArray[np.int64], rng: np.random.Generator) -> Any:
    """Compare one score [n] with the accuracies of ``cells``, indices [n] into the table."""
    truth, short = table.test_200[cells], table.valid_12[cells]
    samples = [rng.integers(len(score), size=len(score)) for _ in range(RESAMPLES)]
    row: dict[str, Any] = {}
    for name, function in (("spearman", spearman), ("kendall", kendall)):
        values = [function(score[i], truth[i]) for i in samples]
        interval = np.percentile(values, [2.5, 97.5]).round(4).tolist()
        row |= {name: round(function(score, truth), 4), f"{name}_interval": interval}
    order = np.argsort(-score, kind="stable")
    row["pick"] = float(truth[order[0]])
    row["best_of_20_after_12_epochs"] = float(truth[order[:20][short[order[:20]].argmax()]])
    return row


def rows_of(run: Path, data: str, table: Table) -> dict[str, Any]:
    """Return the facts of a run of ``automl-ext score``, and a row per score and combination."""
    space = NASBench201()
    scores = ScoreTable.read(run / "scores.csv", space)
    config = json.loads((run / "config.json").read_text())
    result = json.loads((run / "result.json").read_text())
    cells = np.array([place(genotype) for genotype in scores.genotypes])
    parts = {name: (name,) for name in scores.scores}
    parts |= {name: names for name, names in COMBINATIONS.items() if {*names} <= scores.scores.keys()}
    size = {name: config[name] for name in ("channels", "cells", "images")}
    splits = split_images(load_images(data, subset=config["subset"]))
    timed = Random(0).sample(scores.genotypes, min(TIMED, len(cells)))
    job = ScoreJob(space, timed, splits, choose_device("cpu"), RANK, **size)
    rng, rows = np.random.default_rng(0), []
    for name, names in parts.items():
        values = scores.scores[name] if names == (name,) else log_rank_sum(scores.scores, names)
        row = {"score": name, "of": list(names), "cpu_seconds": round(seconds(job, names), 4)}
        rows.append(row | compare(values, table, cells, rng))
        print(rows[-1], flush=True)
    facts = {"architectures": len(cells), "networks": result["networks"], "times": result["times"], **size}
    return {**facts, "seed": config["seed"], "rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="the data of the runs, for example folder:CIFAR")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--table", default="cifar10", help="table of NAS-Bench-201: cifar10 or a file")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table.load(args.table)
    runs = [rows_of(run, args.data, table) for run in args.runs]
    machine = f"{platform.machine()}, torch {torch.__version__}, one thread"
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")


def seconds(job: ScoreJob, names: Sequence[str]) -> float:
    """Measure the mean CPU-seconds of computing the scores ``names`` of a network together, without building it."""
    total = 0.0
    for genotype in job.genotypes:
        network = job.build(genotype)
        start = time.process_time()
        score_network(network, job.batch.images, names)
        total += time.process_time() - start
    return total / len(job.genotypes)


if __name__ == "__main__":
    main()
