"""Measure the milliseconds per step of one process, with one thread and with two, and of two as torchrun starts them.

    python benchmarks/parallel/torchrun.py [--rounds 3] [--json FILE]

The images are the package's digits, 8×8 or resized to 32×32. A step is one gradient step on a batch, which the
processes divide. The times are those of result.json: they leave out starting and the final test.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from automl_ext.cli import main
from automl_ext.training.machine.environment import cpu_name

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
RETRAIN = ["retrain", "--genotype", CELL, "--epochs", "1", "--device", "cpu"]
SEARCH = ["search", "gdas", "--epochs", "1", "--warmup", "0", "--channels", "16", "--device", "cpu"]
SEARCH += ["--retrain-epochs", "1", "--retrain-channels", "1"]
LARGE = ["--image-size", "32", "--subset"]
# Per case: command line, and number of steps.
CASES: dict[str, tuple[list[str], int]] = {
    "retrain, C = 16, 8×8": (RETRAIN, 22),
    "retrain, C = 16, 32×32": ([*RETRAIN, *LARGE, "800", "--epochs", "2"], 20),
    "retrain, C = 32, 32×32": ([*RETRAIN, *LARGE, "240", "--channels", "32", "--epochs", "2"], 6),
    "search gdas, C = 16, 32×32": ([*SEARCH, *LARGE, "1000"], 8),
}
COLUMNS = {"1 process × 1 thread": (1, 1), "1 process × 2 threads": (1, 2), "2 processes × 1 thread": (2, 1)}


def run_cases(out: Path) -> None:
    """Run every case in this process, or on this rank."""
    for i, (command, _) in enumerate(CASES.values()):
        assert main([*command, "--out", str(out / str(i))]) == 0


def milliseconds(run: Path, steps: int) -> float:
    times = json.loads((run / "result.json").read_text())["times"]
    return 1e3 * times.get("search_seconds", times["retrain_seconds"]) / steps


def measure(processes: int, threads: int) -> list[float]:
    """Start the processes with the variables that torchrun sets. Return the milliseconds per step of each case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as out:
        common = {"OMP_NUM_THREADS": threads, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, __file__, "--out", out]
        started = []
        for rank in range(processes):
            own = {key: str(value) for key, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            started.append(subprocess.Popen(command, env=os.environ | own, stdout=subprocess.DEVNULL))
        if any([process.wait() for process in started]):  # a list: wait for all
            raise SystemExit("a process failed")
        return [milliseconds(Path(out, str(i)), steps) for i, (_, steps) in enumerate(CASES.values())]


def report() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="the median of the rounds is reported")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)  # set for the processes that this one starts
    options = parser.parse_args()
    if options.out is not None:
        run_cases(options.out)
        return
    load = os.getloadavg()[0]
    rounds = [[measure(*column) for column in COLUMNS.values()] for _ in range(options.rounds)]
    rows = []
    for i, case in enumerate(CASES):
        medians = [statistics.median(found[j][i] for found in rounds) for j in range(len(COLUMNS))]
        rows.append([case, *(round(ms, 1) for ms in medians)])
        print(f"{case:<40}", *(f"{ms:9.1f} ms" for ms in medians))
    if options.json is not None:
        facts = {"machine": f"{os.cpu_count()} cores, {cpu_name()}", "load": load, "rounds": options.rounds}
        facts["command"] = f"python benchmarks/parallel/torchrun.py --rounds {options.rounds} --json FILE"
        content = facts | {"columns": ["case", *COLUMNS], "rows": rows}
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    report()
