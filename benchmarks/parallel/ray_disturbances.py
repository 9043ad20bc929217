"""Disturb commands that run on a Ray cluster of two nodes on this machine, and compare their results.

    python benchmarks/parallel/ray_disturbances.py --repeat 20 --out benchmarks/results/ray_disturbances.json -- \\
        search renas --controller history --evaluator table --evaluations 3000 --workers 4

The arguments after ``--`` are a command of automl-ext without --out and --cluster. First it runs undisturbed on this
machine. Each repetition runs it on the cluster and, at random times and in random order, kills two workers, replaces
one node by a new one, and kills the driver, all with SIGKILL; the driver is then started again with ``--resume auto``.
The script counts the repetitions whose ``result.json`` equals the undisturbed one, except for times and paths. A
repetition that finishes before all disturbances counts too. ``--out`` replaces the row of this command in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}
FAILED = 2  # exit code of a command that reports an error
KINDS = ("worker", "node", "driver", "driver with its node")
# Parts of the names of times, and of the path of a file in the run directory.
DIFFERENT = ("seconds", "times", "trajectory", "updates_per_second", "steps_per_second", "best_toml")


def comparable(value: Any) -> Any:
    """Return a result without its times and paths."""
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items() if not any(part in k for part in DIFFERENT)}
    return [comparable(v) for v in value] if isinstance(value, list) else value


def start(command: list[str], out: Path, *flags: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "automl_ext", *command, "--out", str(out), *flags]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(line, stdout=log, stderr=log)


def result_of(out: Path) -> Any:
    """Return the result without times."""
    for name in ("result.json", "seeds.json"):
        if (out / name).is_file():
            return comparable(json.loads((out / name).read_text()))
    raise SystemExit(f"{out} has no result; the last lines:\n{(out.parent / f'{out.name}.log').read_text()[-2000:]}")


def processes_below(root: int) -> dict[int, str]:
    """Return the command lines of all processes that descend from ``root``."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
            names[int(path.parent.name)] = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError, IndexError):
            continue
    below = {root}
    for _ in range(len(parents)):
        more = {pid for pid, parent in parents.items() if parent in below} - below
        if not more:
            break
        below |= more
    return {pid: names.get(pid, "") for pid in below}


def kill_worker(rng: random.Random) -> bool:
    """Kill one worker of Ray, if possible one that runs a call. Return False if there is none."""
    end = time.monotonic() + 1.0
    workers: list[int] = []
    while time.monotonic() < end:
        names = processes_below(os.getpid())
        workers = [pid for pid, name in names.items() if name.startswith("ray::")]
        busy = [pid for pid in workers if names[pid].startswith("ray::_run")]
        if busy:
            workers = busy
            break
    if workers:
        os.kill(rng.choice(sorted(workers)), signal.SIGKILL)
    return bool(workers)


def disturbed(command: list[str], out: Path, rng: random.Random, span: float) -> dict[str, Any]:
    """Run the command on a new cluster and disturb it. Return the number of disturbances of each kind."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = cluster.address
    counts = dict.fromkeys(KINDS, 0)
    try:
        driver = start(command, out, "--cluster", "ray")
        wait_for_progress(driver, out, 0.0)  # it belongs to the head, the only node so far
        node = cluster.add_node(**SMALL)
        for kind in rng.sample(["worker", "worker", "node", "driver"], 4):
            wait_for_progress(driver, out, rng.uniform(0.02, 1.0) * span)
            if driver.poll() in (0, FAILED):
                break
            if driver.poll() is not None and counts["node"]:
                counts["driver with its node"] += 1  # Ray had attached it to the removed node
                driver = start(command, out, "--cluster", "ray", "--resume", "auto")
                wait_for_progress(driver, out, rng.uniform(0.02, 1.0) * span)
            counts[kind] += 1
            if kind == "worker":
                counts[kind] -= not kill_worker(rng)
            elif kind == "node":
                cluster.remove_node(node, allow_graceful=False)
                node = cluster.add_node(**SMALL)
            else:
                driver.kill()
                driver.wait()
                driver = start(command, out, "--cluster", "ray", "--resume", "auto")
        if driver.wait() not in (0, FAILED) and counts["node"]:
            counts["driver with its node"] += 1
            start(command, out, "--cluster", "ray", "--resume", "auto").wait()
    finally:
        cluster.shutdown()
    return counts


def wait_for_progress(driver: subprocess.Popen[bytes], out: Path, seconds: float) -> None:
    """Wait until the command has worked for ``seconds``: time before its first measurement does not count."""
    files = [out, *out.glob("seed-*")]
    before = sum((f / "metrics.jsonl").stat().st_size for f in files if (f / "metrics.jsonl").is_file())
    while driver.poll() is None:
        files = [out, *out.glob("seed-*")]
        size = sum((f / "metrics.jsonl").stat().st_size for f in files if (f / "metrics.jsonl").is_file())
        if size != before:
            break
        time.sleep(0.02)
    end = time.monotonic() + seconds
    while driver.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--span", type=float, default=3.0, help="largest time between disturbances, seconds of work")
    parser.add_argument("--out", type=Path)
    parser.add_argument("command", nargs="+", help="command of automl-ext, after --")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ray-disturbances-"))
    rng = random.Random(args.seed)
    if start(args.command, folder / "undisturbed").wait() != 0:
        result_of(folder / "undisturbed")
    expected = result_of(folder / "undisturbed")
    rows: list[dict[str, Any]] = []
    for i in range(args.repeat):
        begin = time.monotonic()
        counts = disturbed(args.command, folder / f"run-{i}", rng, args.span)
        same = result_of(folder / f"run-{i}") == expected
        rows.append({"equal": same, "disturbances": counts, "seconds": round(time.monotonic() - begin, 1)})
        print(f"{i + 1}/{args.repeat}: {'equal' if same else 'DIFFERENT'} after {counts}", flush=True)
    equal = sum(row["equal"] for row in rows)
    total = {kind: sum(row["disturbances"][kind] for row in rows) for kind in KINDS}
    print(f"{equal} of {len(rows)} equal; killed: {total}; files: {folder}")
    if args.out is not None:
        name = " ".join(args.command)
        known = json.loads(args.out.read_text()) if args.out.is_file() else []
        found = {"command": name, "equal": equal, "of": len(rows), "killed": total, "runs": rows}
        content = [*(row for row in known if row["command"] != name), found]
        args.out.write_text("[\n" + ",\n".join(map(json.dumps, content)) + "\n]\n")
    sys.exit(equal != len(rows))


if __name__ == "__main__":
    main()
