"""Run commands for a long time and measure what may grow: memory, descriptors, threads and disk.

    python tools/endurance.py --minutes 40 --out benchmarks/results/endurance.json --picture docs/images/endurance.png

Each command of ``COMMANDS`` runs until SIGTERM, which must end it with a checkpoint. The sums over all its processes
are sampled. Exit code 1 if one of them grows: if its maximum in the last quarter of the time exceeds that in the second
quarter by more than ``GROWTH``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzzing.process import group, group_ends

COMMANDS = {
    "search": "search rea --subset 400 --channels 4 --epochs 1 --evaluations 1000000 --workers 2 --device cpu",
    "train": "train ppo --n-envs 4 --vectorization async --total-steps 1000000000 --eval-every 20000",
}
SECONDS = 20.0  # between two samples
# Largest growth, as a part. The disk has the metrics, a line per evaluation: it may grow by a megabyte per minute.
GROWTH = {"memory_mb": 0.05, "descriptors": 0.05, "threads": 0.0}
DISK = 1.0
SCRIPT = str(Path(sys.executable).with_name("automl-ext"))


def sample(number: int, folder: Path) -> dict[str, float]:
    """Return the sums over a process group, and the size of the folder."""
    found = dict.fromkeys(("memory_mb", "descriptors", "threads", "processes"), 0.0)
    for process in group(number):
        proc = Path(f"/proc/{process}")
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            rollup = (proc / "smaps_rollup").read_text()
            pss = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
            counted = len(os.listdir(proc / "fd")), len(os.listdir(proc / "task"))
            found["memory_mb"] += int(pss) / 1024  # memory that processes share counts once
            found["descriptors"] += counted[0]
            found["threads"] += counted[1]
            found["processes"] += 1
    found["disk_mb"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return {name: round(value, 2) for name, value in found.items()}


def endure(command: str, minutes: float) -> dict[str, Any]:
    """Run a command for this time."""
    samples, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder, open(f"{folder}.log", "w+") as log:
        words = [SCRIPT, *command.split(), "--out", f"{folder}/run"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        while (seconds := time.monotonic() - began) < 60 * minutes and process.poll() is None:
            time.sleep(SECONDS)
            samples.append({"seconds": round(seconds + SECONDS), **sample(process.pid, Path(folder))})
        process.send_signal(signal.SIGTERM)
        code, ended = process.wait(60), group_ends(process.pid)
        lines = Path(folder, "run/metrics.jsonl").read_text().count("\n")
        log.seek(0)
        text = log.read()
    os.unlink(log.name)
    good = code == 130 and ended and "Traceback" not in text
    return {"command": command, "ends": good, "exit_code": code, "metrics": lines, "samples": samples}


def growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """Return by how much the last quarter's maximum exceeds that of the second: a part; for the disk in MB/min.

    Maxima, because evaluations have processes of their own, and not every sample meets one.
    """
    quarter = len(samples) // 4
    found = {}
    for name in (*GROWTH, "disk_mb"):
        first, last = ([s[name] for s in part] for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
        before, after = max(first), max(last)
        minutes = (samples[-1]["seconds"] - samples[0]["seconds"]) / 120
        found[name] = round((after - before) / (minutes if name == "disk_mb" else before), 4)
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = {"memory_mb": "memory, MB", "descriptors": "descriptors", "threads": "threads", "disk_mb": "disk, MB"}
    figure, axes = pyplot.subplots(1, len(names), figsize=(12, 2.8), layout="constrained")
    for axis, (name, label) in zip(axes, names.items(), strict=True):
        for row in rows:
            minutes = [s["seconds"] / 60 for s in row["samples"]]
            axis.plot(minutes, [s[name] for s in row["samples"]], label=" ".join(row["command"].split()[:2]))
        axis.set(xlabel="minutes", title=label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--picture", type=Path, help="PNG file")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for name in options.commands:
        row = endure(COMMANDS[name], options.minutes)
        row |= {"minutes": options.minutes, "growth": growth(row["samples"]), "date": time.strftime("%Y-%m-%d")}
        rows = [*(r for r in rows if r["command"] != row["command"]), row]
        options.out.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        print({k: v for k, v in row.items() if k != "samples"}, flush=True)
    if options.picture:
        draw(rows, options.picture)
    limits = GROWTH | {"disk_mb": DISK}
    return int(any(not row["ends"] or any(row["growth"][n] > limits[n] for n in limits) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
