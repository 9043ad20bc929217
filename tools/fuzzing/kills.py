"""Check that small runs end like an undisturbed run after signals, a killed worker process, or a second start."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

from fuzzing import runs
from fuzzing.case import Finding
from fuzzing.process import Done, end_group, fault, group, group_ends, poll, run, start, wait
from fuzzing.runs import Base, Bases

TRIES = 8  # maximum number of starts to disturb a run before its end
WORKER, TWICE = "worker", "two starts"
SIGNALS = {"SIGKILL": (), "SIGINT": (130,), "SIGTERM": (130,), "SIGHUP": ()}  # exit codes beside that of the signal
WAYS = ["SIGKILL"] * 6 + ["SIGINT", "SIGTERM", "SIGHUP", TWICE]


def check(rng: random.Random, folder: Path, bases: Bases) -> Finding:
    """Disturb one run, then resume it to its end and compare. The number of the case chooses the kind of the run."""
    base = bases[list(runs.KINDS)[int(folder.name.rpartition("-")[2]) % len(runs.KINDS)]]
    way = rng.choice([*WAYS, *[WORKER] * len(WAYS)] if base.kind in runs.WORKERS else WAYS)
    try:
        if way != TWICE:
            return _disturbed(rng, folder, base, way)
        return _twice(rng, folder, base) if base.kind in runs.STOP else _disturbed(rng, folder, base, "SIGKILL")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _disturbed(rng: random.Random, folder: Path, base: Base, way: str) -> Finding:
    folder.mkdir(parents=True)
    shutil.copy(base.whole.with_name("table.csv"), folder)
    argv = runs.command(base.kind, folder, resume=base.kind != "fit")
    moments: list[float] = []
    longest, violation, evidence = 0.95, None, ""
    for _ in range(TRIES):
        moment = rng.uniform(0.05, longest) * base.seconds
        pid = start(argv, folder)
        victims = [pid]
        ended = poll(pid, moment) is not None
        if not ended and way == WORKER:
            victims = [process for process in group(pid) if process != pid and _works(process)]
        if not ended and victims:
            done = _struck(pid, rng.choice(victims), way, argv, folder)
            violation = "worker processes outlive a killed run" if done is None else _wrong_stop(done, way)
            evidence = done.err[-3000:] if done else ""
            moments.append(moment)
            if violation or base.kind == "fit" or rng.random() < 0.7:
                break
        else:
            end_group(pid)
            if not ended:
                os.waitpid(pid, 0)
            shutil.rmtree(folder / "run", ignore_errors=True)
            moments, longest = [], longest * (0.7 if ended else 1)
    what = f"{base.kind}: {way} after {', '.join(f'{m:.2f}' for m in moments)} of {base.seconds:.2f} s"
    if violation is None:
        done = run(argv, folder, runs.LIMIT)
        violation, evidence = _wrong_end(done, base, folder), done.err[-3000:]
    outcome = "violation" if violation else f"{base.kind}, {way}" if moments else "never disturbed"
    return Finding(what, outcome, violation, evidence if violation else "")


def _works(process: int) -> bool:
    """Return whether a process is a worker, or the server of workers, and not Python's own tracker of semaphores."""
    try:
        return b"resource_tracker" not in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def _struck(pid: int, victim: int, way: str, argv: list[str], folder: Path) -> Done | None:
    """Send the signal and wait for the end of the run. Return None if its workers outlive SIGKILL."""
    if way == "SIGKILL":
        os.kill(pid, signal.SIGKILL)  # this process only: its workers must end by themselves
        os.waitpid(pid, 0)
        return Done(argv, None, "", "", 0.0, signal.SIGKILL) if group_ends(pid) else None
    with contextlib.suppress(ProcessLookupError):  # a worker that has just ended
        os.kill(victim, signal.SIGKILL if way == WORKER else signal.Signals[way])
    return wait(pid, argv, folder, runs.LIMIT)


def _wrong_stop(done: Done, way: str) -> str | None:
    """Return what is wrong with the end of a run after a signal; None if it is right."""
    if way != WORKER and done.killed_by == signal.Signals[way]:
        return None
    return fault(done, (0, 1, 2) if way == WORKER else (0, *SIGNALS[way]))


def _twice(rng: random.Random, folder: Path, base: Base) -> Finding:
    """Start two processes on one run directory and check the result.

    Each process must complete the run or exit with an error message, and at least one must complete it. The finished
    run must be equal to an undisturbed run.
    """
    folder.mkdir(parents=True)
    second = folder / "second"  # a separate folder for its output
    second.mkdir()
    pause = rng.choice((0.0, 0.0, rng.uniform(0, base.seconds)))
    argv = runs.command(base.kind, folder)
    first_pid = start(argv, folder)
    time.sleep(pause)
    other_pid = start(argv, second)
    ends = [wait(pid, argv, place, runs.LIMIT) for pid, place in ((first_pid, folder), (other_pid, second))]
    what = f"{base.kind}: two starts, {pause:.2f} s apart"
    violation = next((f"two starts: {text}" for done in ends if (text := fault(done))), None)
    if violation is None and all(done.code for done in ends):
        violation = "two starts: both are refused"
    done = run(argv, folder, runs.LIMIT)
    violation = violation or _wrong_end(done, base, folder)
    evidence = "\n".join(done.err[-1500:] for done in (*ends, done)) if violation else ""
    return Finding(what, "violation" if violation else f"{base.kind}, {TWICE}", violation, evidence)


def _wrong_end(done: Done, base: Base, folder: Path) -> str | None:
    """Return what is wrong with the end of a run that was started again; None if it is right."""
    violation = fault(done)
    if base.kind == "fit":  # it cannot be resumed, and its folder is refused
        return violation
    if violation is None and done.code != 0:
        violation = f"the run cannot be resumed: {done.err[-200:]}"
    if violation is None and "skipping the damaged checkpoint" in done.err:
        violation = "a kill left a checkpoint that looks damaged"
    return violation or runs.difference(base, folder / "run")
