"""Check that a run survives every crash of its machine, as its files can be after one.

    PYTHONPATH=tools python -m torture                          # all commands: make torture
    PYTHONPATH=tools python -m torture --commands fit --states 50 --keep build/torture

Each command runs once under strace. Disks after a crash are rebuilt from its file operations (disks.py has the model),
and each is given to the command again. The command continues the run or refuses it in one line. It prints no traceback,
loses no checkpoint that was on the disk, and ends with the result of an undisturbed run, bit for bit where that is
promised. A ``result.json`` is on the disk only with everything else of the finished run.

The commands run in forks of one process, which has made an undisturbed run itself and thus has imported everything.
Their workers are forks too.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import gc
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process has only one thread
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

from automl_ext.training.machine.environment import cpu_name
from torture.commands import COMMANDS, OUTCOMES, check, recorded
from torture.disks import key, write


def torture(name: str, states: int, ends: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Test one command with a number of disks. Return the counts, and one line for each fault."""
    began, rng = time.process_time() + sum(os.times()[2:4]), random.Random(f"{seed}:{name}")
    place = Path(tempfile.mkdtemp(prefix="torture-")).resolve()
    counts: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    try:
        (place / "table.csv").write_text("x,y\n" + "".join(f"{i * i % 17},{'ab'[i % 2]}\n" for i in range(60)))
        made = recorded(COMMANDS[name], place)
        gc.freeze()  # a collection in a fork would copy all pages
        seen: set[str] = set()
        for case in made.disks.cases(rng):
            counts["drawn"] += 1
            digest = key(files := made.disks.files(case))
            if digest in seen:
                continue
            seen.add(digest)
            folder = place / f"state-{len(seen)}"
            outcome = check(made, case, folder, counts["ended"] < ends)
            counts[outcome.name] += 1
            counts["ended"] += outcome.ended
            if outcome.fault is not None:
                what = f"{name}: crash after {case.end} of {len(made.disks.effects)} operations, {case.name}"
                faults.append(f"{what}: {outcome.fault}")
                print(faults[-1], flush=True)
                if keep is not None:
                    kept = keep / f"{name.replace(' ', '-')}-{len(seen)}"
                    shutil.rmtree(kept, ignore_errors=True)
                    kept.mkdir(parents=True)
                    write(files, kept)
            shutil.rmtree(folder, ignore_errors=True)
            if len(seen) == states:
                break
        operations = len(made.disks.effects)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    seconds = round(time.process_time() + sum(os.times()[2:4]) - began, 1)
    row = {"command": name, "operations": operations, "drawn": counts["drawn"], "states": len(seen)}
    row |= {outcome: counts[outcome] for outcome in (*OUTCOMES, "ended")}
    row |= {"faults": len(faults), "cpu_seconds": seconds, "seed": seed, "date": datetime.date.today().isoformat()}
    return row | {"processor": cpu_name(), "python": platform.python_version(), "torch": torch.__version__}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("torture", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS), metavar="NAME")
    parser.add_argument("--states", type=int, default=150, help="number of different disks of each command")
    parser.add_argument("--ends", type=int, default=20, help="number of these that are run to their end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the disks with a fault")
    parser.add_argument("--out", type=Path, help="write the counts to this JSON file")
    options = parser.parse_args(argv)
    rows = {}
    if options.out and options.out.exists():  # those of other commands are kept
        rows = {row["command"]: row for row in json.loads(options.out.read_text())["rows"]}
    for name in options.commands:
        rows[name] = torture(name, options.states, options.ends, options.seed, options.keep)
        print(json.dumps(rows[name]), flush=True)
        if options.out:
            ordered = [rows[command] for command in COMMANDS if command in rows]
            options.out.write_text(json.dumps({"rows": ordered}, indent=1) + "\n")
    return int(any(rows[name]["faults"] for name in options.commands))


if __name__ == "__main__":
    sys.exit(main())
