"""Compare ways to learn from a table at equal CPU budgets: ``automl_ext.tabular.fit``, tuned boosting, and peers.

    python benchmarks/tabular.py --minutes 1 --seeds 0 1 2 --json benchmarks/results/tabular.json

Each row is one contender on one data set with one seed, in a process with one thread. The budget is CPU time of that
process, and at 1.5 budgets the process is ended: such a row, and a row of any other failure, has an error in place of
the test error. Finished rows are in the file and are not repeated; a killed benchmark loses the row it was at.
``--summary FOLDER`` writes mean ranks to ``tabular_summary.json`` beside the rows, and for each budget a picture to the
folder. ``AUTOML_EXT_R_LIBRARY`` names the folder of R's packages.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PARTS = Path(__file__).with_name("tabular_parts")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(PARTS))
from contend import HARD_LIMIT  # noqa: E402
from contenders import CONTENDERS, PEERS  # noqa: E402
from data_sets import ALL, SETS, read  # noqa: E402
from ranks import comparison, draw, summary  # noqa: E402

from automl_ext.training.machine.environment import cpu_name  # noqa: E402

LIBRARIES = ("lightgbm", "xgboost-cpu", "optuna", "hyperopt", "FLAML", "autogluon.features", "scikit-learn", "pandas")
SLOWEST = 12  # wall-clock seconds per CPU second on a machine shared with other work


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["set"], row["method"], row["seed"], row["minutes"]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row to the file. Several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        rows = [old for old in read_rows(path) if key(old) != key(row)] + [row]
        content = {"command": "python benchmarks/tabular.py", "libraries": libraries(), "rows": rows}
        text = json.dumps(content, indent=None)
        text = text.replace('{"set"', '\n{"set"') + "\n"  # one row per line
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        os.close(folder)  # which ends the lock


def libraries() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def commit() -> str:
    """Return the commit of the sources, "+" if they have changes that are not committed."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(describe, capture_output=True, text=True).stdout.strip()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one contender in a process of its own. Return its row; a failure is the row's error."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")}
    environment = {**os.environ, **one, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    row = {**job, "machine": f"1 thread of {cpu_name()}", "commit": commit()}
    limit = 60 * job["minutes"] * HARD_LIMIT * SLOWEST + 120
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "job.json"), Path(folder, "result.json")
        given.write_text(json.dumps(job))
        command = [sys.executable, str(PARTS / "contend.py"), str(given), str(result)]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return {**row, "error": f"ended after {limit:.0f} seconds of wall-clock time"}
        if process.returncode == 0:
            return {**row, **json.loads(result.read_text())}
    if process.returncode < 0:
        return {**row, "error": f"ended by signal {-process.returncode}; 24 is {HARD_LIMIT} budgets of CPU time"}
    return {**row, "error": (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:200]}


def missing(name: str) -> str | None:
    """Return why a data set cannot be read; None if it can."""
    try:
        read(ALL[name])
    except (FileNotFoundError, ModuleNotFoundError) as error:
        return str(error)
    return None


def summarize(path: Path, folder: Path) -> None:
    """Write the summary of all budgets beside the rows, and one picture for each."""
    rows = read_rows(path)
    found = [comparison(rows, minutes) for minutes in sorted({row["minutes"] for row in rows})]
    content = {"command": "python benchmarks/tabular.py --summary docs/images", "comparisons": [f for f in found if f]}
    path.with_name(f"{path.stem}_summary.json").write_text(json.dumps(content, indent=1) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    for one in content["comparisons"]:
        draw(one["ranks"], len(one["data_sets"]), folder / f"tabular_{one['minutes']:g}.png", one["minutes"])
        print(summary(one))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU budget of each contender")
    parser.add_argument("--sets", nargs="+", choices=[*ALL, "all"], default=list(SETS), metavar="SET")
    parser.add_argument("--methods", nargs="+", choices=[*CONTENDERS, "peers"], default=list(CONTENDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "tabular.json")
    parser.add_argument("--again", action="store_true", help="repeat rows that have an error")
    parser.add_argument("--summary", type=Path, metavar="FOLDER", help="summarize the rows, draw, and run nothing")
    args = parser.parse_args()
    if args.summary is not None:
        summarize(args.json, args.summary)
        return
    methods = [m for name in args.methods for m in (PEERS if name == "peers" else [name])]
    sets = [s for name in args.sets for s in (list(ALL) if name == "all" else [name])]
    for name in sets:
        if reason := missing(name):
            print(f"{name}: skipped: {reason}", flush=True)
            sets = [other for other in sets if other != name]
    done = {key(row) for row in read_rows(args.json) if "error" not in row or not args.again}
    jobs = [
        {"set": name, "method": method, "seed": seed, "minutes": args.minutes}
        for seed in args.seeds
        for name in sets
        for method in methods
    ]
    jobs = [job for job in jobs if key(job) not in done]
    print(f"{len(jobs)} rows to do, {len(done)} rows in {args.json}", flush=True)
    for i, job in enumerate(jobs, 1):
        started = time.monotonic()
        row = run(job)
        append(args.json, row)
        shown = row.get("error") or f"{row['metric']} {row['value']:.4f}, {row['cpu_seconds']:.1f} CPU seconds"
        took = time.monotonic() - started
        print(f"{i}/{len(jobs)} {job['set']} {job['method']} seed {job['seed']}: {shown} ({took:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
