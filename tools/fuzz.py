"""Give automl_ext random bad input.

It must never cause a traceback, an unreported change of files or results, a crash or a hang.

    python tools/fuzz.py commands --count 2500 --workers 2 --out found.json  # command lines
    python tools/fuzz.py checkpoints --count 300                             # damaged run directories
    python tools/fuzz.py inputs --count 300                                  # hostile data, TOML, tables, pickles …
    python tools/fuzz.py kills --count 60                                    # SIGKILL; two runs in one directory
    python tools/fuzz.py all                                                 # all of them, with these counts
    python tools/fuzz.py all --only inputs:17                                # repeat one case and print what it found

Calls of ops are in python_tests/ops/test_op_calls.py.

A case depends only on --seed, its kind and its index. The exit code is 1 if there is a violation.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process has only one thread
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from fuzzing.case import Finding, rng_of, short

COUNTS = {"commands": 2_500, "checkpoints": 300, "inputs": 300, "kills": 60}  # cases of each kind
Case = tuple[str, int]


def cases(name: str, count: int | None) -> list[Case]:
    """Return the cases of one kind or of all."""
    kinds = COUNTS if name == "all" else (name,)
    return [(kind, i) for kind in kinds for i in range(COUNTS[kind] if count is None else count)]


def check(seed: int, case: Case, folder: Path, bases: Any) -> Finding:
    """Run one case."""
    kind, index = case
    place = folder / f"{kind}-{index}"
    finding: Finding = import_module(f"fuzzing.{kind}").check(rng_of(seed, kind, index), place, bases)
    return finding


def confirmed(seed: int, case: Case, folder: Path, bases: Any) -> Finding:
    """Run a case. If it exceeds its time, run it again, because other work on the machine may be the cause."""
    try:
        finding = check(seed, case, folder, bases)
        if finding.violation and finding.violation.startswith("hang"):
            finding = check(seed, case, folder, bases)
            if not finding.violation:
                finding.outcome = "slow once"
        return finding
    except Exception:
        return Finding("", "tool", "this tool failed", traceback.format_exc()[-3000:])


def findings(seed: int, wanted: list[Case], folder: Path) -> Iterator[tuple[Case, Finding]]:
    from fuzzing import runs

    bases = runs.Bases(folder / "bases")
    for case in wanted:
        yield case, confirmed(seed, case, folder, bases)


def work(seed: int, wanted: list[Case], folder: Path, report: Path) -> None:
    """Run cases in a worker process. Write one line of JSON per case to ``report``."""
    folder.mkdir(parents=True)
    with report.open("w", encoding="utf-8") as file:
        began = time.monotonic()
        for (kind, index), finding in findings(seed, wanted, folder):
            seconds, began = time.monotonic() - began, time.monotonic()
            line = {"case": f"{kind}:{index}", "seconds": round(seconds, 3), **dataclasses.asdict(finding)}
            file.write(json.dumps(line) + "\n")
            file.flush()


def run_all(seed: int, wanted: list[Case], workers: int, folder: Path) -> list[dict[str, Any]]:
    """Run the cases in worker processes and collect their reports."""
    pids, reports = [], []
    sys.stdout.flush()
    for number in range(workers):
        reports.append(folder / f"worker-{number}.jsonl")
        pid = os.fork()
        if not pid:
            code = 1
            try:
                work(seed, wanted[number::workers], folder / f"worker-{number}", reports[-1])
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    codes = _watch(pids, reports, len(wanted))
    lines = _lines(reports)
    if any(codes) or len(lines) != len(wanted):
        print(f"the tool failed: {len(lines)} of {len(wanted)} cases done, workers' exit codes {codes}")
        lines.append(_failure(f"{len(wanted) - len(lines)} cases were not run"))
    return lines


def _watch(pids: list[int], reports: list[Path], total: int) -> list[int]:
    codes: dict[int, int] = {}
    shown = time.monotonic()
    while len(codes) < len(pids):
        time.sleep(0.1)
        for pid in pids:
            if pid not in codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            lines = _lines(reports)
            bad = sum(line["violation"] is not None for line in lines)
            print(f"{len(lines)} of {total} cases, {bad} violations", file=sys.stderr, flush=True)
    return list(codes.values())


def _lines(reports: list[Path]) -> list[dict[str, Any]]:
    text = "".join(path.read_text(encoding="utf-8") for path in reports if path.exists())
    return [json.loads(line) for line in text.split("\n") if line.endswith("}")]


def _failure(text: str) -> dict[str, Any]:
    return {"case": "tool:0", "seconds": 0.0, **dataclasses.asdict(Finding("", "tool", text))}


def summary(lines: list[dict[str, Any]], seed: int) -> str:
    """Format the counts by kind and outcome, and the violations by cause, each with a command that replays one case."""
    counts = collections.Counter((line["case"].split(":")[0], line["outcome"]) for line in lines)
    text = [f"{kind:<12}{outcome:<28}{count:>7}" for (kind, outcome), count in sorted(counts.items())]
    causes: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["violation"] is not None:
            causes.setdefault(line["violation"], []).append(line)
    text.append(f"{len(lines)} cases, {sum(map(len, causes.values()))} violations of {len(causes)} kinds")
    for violation, found in sorted(causes.items(), key=lambda item: -len(item[1])):
        example = found[0]
        text += [f"{len(found):>5}  {violation}", f"       {short(example['what'], 300)}"]
        text.append(f"       python tools/fuzz.py all --seed {seed} --only {example['case']}")
    return "\n".join(text)


def write_counts(lines: list[dict[str, Any]], seed: int, path: Path) -> None:
    """Write how many cases of each kind had which outcome, and on what; counts of other kinds in the file are kept."""
    from automl_ext.training.machine.environment import cpu_name

    rows = [] if not path.exists() else json.loads(path.read_text())
    counts = collections.Counter((line["case"].split(":")[0], line["outcome"]) for line in lines)
    made = {"seed": seed, "date": str(datetime.date.today()), "processor": cpu_name()}
    rows = [row for row in rows if row["kind"] not in {kind for kind, _ in counts}]
    rows += [{"kind": kind, "outcome": end, "count": count, **made} for (kind, end), count in sorted(counts.items())]
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def replay(seed: int, case: Case, folder: Path) -> int:
    for _, finding in findings(seed, [case], folder):
        print(f"{finding.what}\n{finding.outcome}: {finding.violation or 'no violation'}\n{finding.detail}")
        if finding.violation:
            return 1
    return 0


def _case(text: str) -> Case:
    kind, _, index = text.partition(":")
    if kind not in COUNTS or not index.isdecimal():
        raise argparse.ArgumentTypeError(f"expected KIND:INDEX with a kind of {', '.join(COUNTS)}, got {text!r}")
    return kind, int(index)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("fuzz.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=[*COUNTS, "all"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help=f"number of cases of each kind (default: {COUNTS})")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write all cases to this JSON file")
    parser.add_argument("--counts", type=Path, help="write the counts of each kind to this JSON file, beside others")
    parser.add_argument("--only", type=_case, metavar="KIND:INDEX", help="run this case again and print its evidence")
    options = parser.parse_args(argv)
    from fuzzing import process

    process.preload()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        if options.only:
            return replay(options.seed, options.only, folder / "replay")
        lines = run_all(options.seed, cases(options.what, options.count), options.workers, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.out:
        options.out.write_text(json.dumps(lines, indent=1))
    if options.counts:
        write_counts(lines, options.seed, options.counts)
    print(summary(lines, options.seed))
    return int(any(line["violation"] is not None for line in lines))


if __name__ == "__main__":
    sys.exit(main())
