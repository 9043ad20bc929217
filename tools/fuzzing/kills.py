"""Check that small runs killed with SIGKILL, or started twice, end like an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from fuzzing import runs
from fuzzing.case import Finding
from fuzzing.process import Done, end_group, fault, group_ends, poll, start, wait
from fuzzing.runs import Base, Bases

TRIES = 8  # maximum number of starts to kill a run before its end


def check(rng: random.Random, folder: Path, bases: Bases) -> Finding:
    """Kill one run, or start it twice at once, then resume it to its end and compare."""
    kind = rng.choices(list(runs.STOP), (4, 4, 3, 3, 2, 2))[0]
    base = bases[kind]
    try:
        if rng.random() < 0.17:
            return _twice(rng, folder, base)
        return _killed(rng, folder, base)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _killed(rng: random.Random, folder: Path, base: Base) -> Finding:
    folder.mkdir(parents=True)
    argv = _argv(base)
    moments = []
    longest = 0.95
    for _ in range(TRIES):
        moment = rng.uniform(0.05, longest) * base.seconds
        pid = start(argv, folder)
        if poll(pid, moment) is None:
            os.kill(pid, signal.SIGKILL)  # this process only: its workers must end by themselves
            os.waitpid(pid, 0)
            moments.append(moment)
            if not group_ends(pid):
                return Finding(_what(base, moments), "violation", "worker processes outlive a killed run")
            if rng.random() < 0.7:
                break
        else:  # the run ended before the signal
            end_group(pid)
            shutil.rmtree(folder / "run", ignore_errors=True)
            moments, longest = [], longest * 0.7
    done = runs.resume(base.kind, folder)
    violation = _wrong_end(done, base, folder)
    outcome = "violation" if violation else "killed and resumed" if moments else "never killed"
    return Finding(_what(base, moments), outcome, violation, done.err[-3000:] if violation else "")


def _twice(rng: random.Random, folder: Path, base: Base) -> Finding:
    """Start two processes on one run directory and check the result.

    Each process must complete the run or exit with an error message, and at least one must complete it. The finished
    run must be equal to an undisturbed run.
    """
    folder.mkdir(parents=True)
    second = folder / "second"  # a separate folder for its output
    second.mkdir()
    pause = rng.choice((0.0, 0.0, rng.uniform(0, base.seconds)))
    argv = [*runs.KINDS[base.kind], "--out", str(folder / "run"), "--resume", "auto"]
    first_pid = start(argv, folder)
    time.sleep(pause)
    other_pid = start(argv, second)
    ends = [wait(pid, argv, place, runs.LIMIT) for pid, place in ((first_pid, folder), (other_pid, second))]
    what = f"{base.kind}: two starts, {pause:.2f} s apart"
    violation = next((f"two starts: {text}" for done in ends if (text := fault(done))), None)
    if violation is None and all(done.code for done in ends):
        violation = "two starts: both are refused"
    done = runs.resume(base.kind, folder)
    violation = violation or _wrong_end(done, base, folder)
    evidence = "\n".join(done.err[-1500:] for done in (*ends, done)) if violation else ""
    codes = " and ".join(str(done.code) for done in ends)
    return Finding(what, "violation" if violation else f"two starts: exit {codes}", violation, evidence)


def _argv(base: Base) -> list[str]:
    return [*runs.KINDS[base.kind], "--out", "run", "--resume", "auto"]


def _what(base: Base, moments: list[float]) -> str:
    return f"{base.kind}: killed after {', '.join(f'{m:.2f}' for m in moments)} of {base.seconds:.2f} s"


def _wrong_end(done: Done, base: Base, folder: Path) -> str | None:
    violation = fault(done)
    if violation is None and done.code != 0:
        violation = f"the run cannot be resumed: {done.err[-200:]}"
    if violation is None and "skipping the damaged checkpoint" in done.err:
        violation = "a kill left a checkpoint that looks damaged"
    return violation or runs.difference(base, folder / "run")
