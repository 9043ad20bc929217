"""Measure the seconds per step of one process and of several that torchrun starts.

    OMP_NUM_THREADS=1 python benchmarks/parallel/torchrun.py [--ranks 1 2] [--rounds 3] [--json FILE]

Every process has one thread. A step is one gradient step. The times are those of result.json: they leave out starting
and the final test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from automl_ext.cli import main
from automl_ext.training.machine.environment import cpu_name

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SEARCH = ["--epochs", "1", "--warmup", "0", "--channels", "16"]
SEARCH += ["--retrain-epochs", "1", "--retrain-channels", "1"]
# Per case: command line, and number of steps.
CASES: dict[str, tuple[list[str], int]] = {
    "retrain, C = 16, batch 64": (["retrain", "--genotype", CELL, "--epochs", "1"], 22),
    "retrain, C = 32, N = 3, batch 256": (
        ["retrain", "--genotype", CELL, "--epochs", "1", "--channels", "32", "--cells", "3", "--batch-size", "256"],
        5,
    ),
    "search gdas, C = 16, batch 64": (
        ["search", "gdas", *SEARCH],
        2 * 8,
    ),
}


def run_cases(out: Path) -> None:
    """Run every case in this process, or on this rank."""
    for i, (command, _) in enumerate(CASES.values()):
        assert main([*command, "--out", str(out / str(i))]) == 0


def milliseconds(run: Path, steps: int) -> float:
    times = json.loads((run / "result.json").read_text())["times"]
    return 1e3 * times.get("search_seconds", times["retrain_seconds"]) / steps


def measure(count: int) -> list[float]:
    """Start ``count`` ranks; return the milliseconds per step of each case."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [sys.executable, *launch, __file__, "--out", out],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        return [milliseconds(Path(out, str(i)), steps) for i, (_, steps) in enumerate(CASES.values())]


def report() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3, help="the median of the rounds is reported")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)  # set for the processes that this one starts
    options = parser.parse_args()
    if options.out is not None:
        run_cases(options.out)
        return
    load = os.getloadavg()[0]
    rounds = [{count: measure(count) for count in options.ranks} for _ in range(options.rounds)]
    rows = []
    for i, case in enumerate(CASES):
        median = [statistics.median(found[count][i] for found in rounds) for count in options.ranks]
        rows.append([case, *(round(ms, 3) for ms in median)])
        print(f"{case:<45}", *(f"{ms:9.2f} ms" for ms in median))
    if options.json is not None:
        facts = {"machine": f"{os.cpu_count()} cores, {cpu_name()}", "load": load, "rounds": options.rounds}
        command = f"python benchmarks/parallel/torchrun.py --rounds {options.rounds} --json FILE"
        facts["command"] = f"OMP_NUM_THREADS=1 {command}"
        content = facts | {"columns": ["case", *map(str, options.ranks)], "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    report()
