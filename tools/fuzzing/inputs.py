"""Check damaged and hostile data sets, TOML files, genotypes, tables, pickles and results.

For each input, a command must end with a one-line error or read it correctly, in bounded memory and time. It must not
execute code from the input.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from fuzzing import hostile_data, hostile_text, runs
from fuzzing.case import Finding, short
from fuzzing.process import Done, fault, run
from fuzzing.runs import Bases

LIMIT = 30.0  # seconds of CPU time
MEMORY = 2 << 30  # bytes
CANARY = "canary"  # this file exists if code in an input was executed


def check(rng: random.Random, folder: Path, bases: Bases) -> Finding:
    """Make a hostile file in ``folder`` and run a command that reads it."""
    folder.mkdir(parents=True)
    makers = {**hostile_data.MAKERS, **hostile_text.MAKERS}
    name = rng.choices(list(makers), [weight for weight, _ in makers.values()])[0]
    try:
        what, argv, like = makers[name][1](rng, folder, bases)
        done = run(argv, folder, LIMIT, MEMORY)
        violation = _injected(folder) or fault(done) or _left(done, folder) or _other_result(done, folder, like)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for log in ("out", "err"):
            folder.with_name(f"{folder.name}.{log}").unlink(missing_ok=True)
    outcome = "violation" if violation else f"exit {done.code}"
    return Finding(f"{name}: {what}; {short(argv, 400)}", outcome, violation, done.err[-3000:] if violation else "")


def _injected(folder: Path) -> str | None:
    return "code in an input was executed" if any(folder.rglob(f"{CANARY}*")) else None


def _left(done: Done, folder: Path) -> str | None:
    if done.code == 2 and (folder / "out").exists() and done.argv[0] != "export" and "diverged" not in done.err:
        return "a refused start left a run directory"
    return None


def _other_result(done: Done, folder: Path, like: list[str] | None) -> str | None:
    """Check that a damaged file, if it is read, gives the same result as the undamaged file."""
    if done.code != 0 or like is None:
        return None
    expected = run(like, folder, LIMIT)
    if expected.code != 0:
        return f"the undamaged input is refused: {expected.err[-300:]}"
    a, b = (json.loads((folder / name / "result.json").read_bytes()) for name in ("out", "expected"))
    return None if runs.without_times(a) == runs.without_times(b) else "a damaged input changes the result"
