"""Check random command lines.

They must end with exit code 0, 1 or 2, report an error in one line, and change no other files.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

from fuzzing import command_lines, command_tables
from fuzzing.case import Finding, short
from fuzzing.process import Done, fault, run
from fuzzing.runs import Bases

LIMIT = 30.0  # seconds of CPU time
STARTED = ("diverged", "failed", "candidates", "interrupted")  # words in errors that a run may raise after its start


def check(rng: random.Random, folder: Path, bases: Bases) -> Finding:
    """Run one random command line in ``folder``."""
    line = command_lines.line(rng)
    command_lines.prepare_folder(folder)
    for name, kind in command_tables.RUNS.items():
        if name in line.argv:
            shutil.copytree(bases[kind].whole, folder / name)
    done = run(line.argv, folder, LIMIT)
    try:
        return judge(line, done, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge(line: command_lines.Line, done: Done, folder: Path) -> Finding:
    what = short(line.argv, 1500)
    if line.large and (done.timed_out or done.killed_by):
        return Finding(what, "large, stopped")
    if not line.argv and done.code == 2 and done.out.startswith("usage:"):
        return Finding(what, "usage")
    violation = fault(done) or _silent(line, done, folder)
    outcome = violation.split(":")[0] if violation else f"exit {done.code}"
    return Finding(what, outcome, violation, done.err[-3000:] if violation else "")


def _silent(line: command_lines.Line, done: Done, folder: Path) -> str | None:
    """Return a description of what the command changed or left without an error; None if nothing."""
    if (folder / "full/mine.txt").read_text() != "keep" or (folder / "file").read_text() != "keep":
        return "an existing file was changed"
    if done.code == 1 and line.argv[0] not in ("doctor", "bench"):
        return "exit code 1"
    run_folder = folder / "run"
    if done.code == 2 and run_folder.exists() and not any(word in done.err for word in STARTED):
        return f"a refused start left a run directory: {_error(done)}"
    config = run_folder / "config.json"
    if done.code == 0 and config.is_file():
        return _not_as_asked(line.given, _flat(json.loads(config.read_bytes()))) or _not_json(run_folder)
    return None


def _error(done: Done) -> str:
    return next((text[:120] for text in done.err.splitlines() if text.startswith("error: ")), "")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _not_as_asked(given: dict[str, str], config: dict[str, Any]) -> str | None:
    """Check that config.json has the numbers given as options."""
    for name, text in given.items():
        value = config.get(name)
        if type(value) in (int, float):
            try:
                asked = float(text)
            except ValueError:
                return f"{name} was given as {text!r} and became {value}"
            if math.isfinite(asked) and asked != value:
                return f"{name} was given as {text!r} and became {value}"
    return None


def _not_json(run_folder: Path) -> str | None:
    def no_constant(name: str) -> None:
        raise ValueError(name)

    for name in ("result.json", "metrics.jsonl"):
        path = run_folder / name
        text = path.read_text() if path.exists() else ""
        for part in text.splitlines() if name.endswith("l") else [text] * path.exists():
            try:
                json.loads(part, parse_constant=no_constant)
            except ValueError as error:
                return f"{name} is not strict JSON: {error}"
    return None
