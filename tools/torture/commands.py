"""The commands whose crashes are tested, and what must hold for the disk and for the command that meets it."""

from __future__ import annotations

import contextlib
import filecmp
import io
import multiprocessing
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzzing import process, runs
from fuzzing.command_tables import DREAMER

from torture.disks import Case, Disks, Files, is_unread, read, write
from torture.operations import record

LIMIT = 120.0  # seconds of CPU time of one command
RUN, RESULT, CONFIG = "run", "run/result.json", "run/config.json"
AUTO = ("--resume", "auto")
TABLE = "../table.csv"  # beside the recorded folder
PREDICTED = "predicted.csv"
_EVERY = "--eval-every 32 --eval-episodes 1 --final-episodes 1 --checkpoint-every 32"
_IMAGES = "--subset 60 --channels 2 --batch-size 16 --device cpu"

OUTCOMES = RESUMED, ANEW, REFUSED = "resumed", "started anew", "refused"


@dataclass(frozen=True)
class Command:
    """A command, and the starts of it that make one run directory.

    Attributes:
        arguments: those that all starts have.
        starts: further arguments of each start.
        resume: the arguments with which a start continues a run; empty if the command cannot.
        stop: the arguments with which a start ends early.
        kind: the kind of run that :func:`fuzzing.runs.difference` compares; "" if equal results are not promised.
    """

    arguments: str
    starts: tuple[str, ...]
    stop: str = "--stop-after 1"
    resume: tuple[str, ...] = AUTO
    kind: str = "-"


COMMANDS = {
    "a2c": Command(
        f"train a2c --n-envs 2 --n-steps 4 --hidden 8 --no-lr-decay {_EVERY}",
        ("--total-steps 128 --stop-after 64", "--total-steps 128", "--total-steps 160"),
    ),
    "dqn": Command(
        "train dqn --hidden 8 --batch-size 8 --buffer-size 100 --learning-starts 16 --train-freq 8 --gradient-steps 2"
        f" --prioritized {_EVERY} --total-steps 128",
        ("--stop-after 64", ""),
    ),
    "dreamer": Command(f"train dreamer {DREAMER} --horizon 3 {_EVERY} --total-steps 96", ("--stop-after 48", "")),
    "search gdas": Command(
        f"search gdas --epochs 4 --retrain-epochs 2 --retrain-channels 2 {_IMAGES}", ("--stop-after 2", "")
    ),
    "search renas": Command(
        f"search renas --epochs 1 --evaluations 6 --workers 2 --population 3 --sample 2 {_IMAGES}",
        ("--stop-after 2", ""),
        kind="renas",
    ),
    "tune": Command(
        f"tune train a2c --trials 3 --confirm 1 --n-envs 2 --n-steps 4 --hidden 8 {_EVERY} --total-steps 32",
        ("--stop-after 1", ""),
        kind="tune",
    ),
    "fit": Command(f"fit {TABLE} --target y --minutes 0.02", ("",), stop="", resume=(), kind=""),
}


@dataclass
class Recorded:
    """The operations of a command, and undisturbed runs.

    Attributes:
        ends: number of operations after each start.
        whole: an undisturbed run with the arguments of each start.
    """

    command: Command
    disks: Disks
    ends: list[int]
    whole: list[Path]


def arguments(command: Command, start: int) -> list[str]:
    """Return the arguments of one start, to its end."""
    more = re.sub(r"--stop-after \d+", "", command.starts[start])
    return [*command.arguments.split(), *more.split(), "--out", RUN]


def recorded(command: Command, place: Path) -> Recorded:
    """Make undisturbed runs in this process, then all starts under strace.

    Raises:
        RuntimeError: the operations do not make the files that are there, or a run fails.
    """
    lines = [arguments(command, start) for start in range(len(command.starts))]
    whole = [place / f"whole-{lines.index(line)}" for line in lines]
    for line, folder in zip(lines, whole, strict=True):
        if not folder.exists():
            run_here(line, folder)
    folder = place / "recorded"
    folder.mkdir()
    operations, ends = [], []
    for start, more in enumerate(command.starts):
        argv = [*command.arguments.split(), *more.split(), "--out", RUN, *(command.resume if start else ())]
        operations += record(lambda argv=argv: _succeed(process.run(argv, folder, LIMIT)), folder)  # type: ignore[misc]
        ends.append(len(Disks(operations).effects))
    disks = Disks(operations)
    if disks.files(disks.live(len(disks.effects))) != read(folder):
        raise RuntimeError("the recorded operations do not make the files that are there")
    return Recorded(command, disks, ends, [folder / RUN for folder in whole])


def run_here(argv: Sequence[str], folder: Path) -> None:
    """Run a command in this process, with workers that are forks of it."""
    import automl_ext.parallel.processes
    from automl_ext import cli

    fork = multiprocessing.get_context("fork")
    automl_ext.parallel.processes.worker_context = lambda: fork  # type: ignore[assignment, return-value]
    folder.mkdir()
    before, said = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(list(argv))
    finally:
        os.chdir(before)
    if code != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit code {code}: {said.getvalue()[-2000:]}")


def _succeed(done: process.Done) -> None:
    if done.code != 0:
        raise RuntimeError(f"{' '.join(done.argv)}: exit code {done.code}: {done.err[-2000:]}")


def false_claim(disks: Disks, case: Case, files: Files) -> str | None:
    """Return what is missing of the finished run whose ``result.json`` is on the disk; None if nothing is.

    What a run had written when it wrote its result must be there, unless something changed it afterwards.
    """
    if RESULT not in files:
        return None
    node = disks.tree(case).find(RESULT)
    finished = next(
        i + 1
        for i, effect in enumerate(disks.effects)
        if effect.node == node and RESULT in (effect.operation.to, effect.operation.path)
    )
    later = {
        name
        for effect in disks.effects[finished : case.end]
        for name in (effect.operation.path, effect.operation.to)
        if effect.operation.kind != "fsync"
    }
    for path, content in disks.files(disks.live(finished)).items():
        changed = any(f"{path}/".startswith(f"{name}/") for name in later - {CONFIG, ""})
        if not changed and not is_unread(path) and files.get(path, b"missing") != content:
            return f"{RESULT} is there, but {path} {'differs' if path in files else 'is missing'}"
    return None


def durable_step(disks: Disks, end: int) -> int:
    """Return the step of the newest checkpoint that no crash after ``end`` operations may lose; -1: none."""
    live = {path for path, _ in disks.tree(disks.live(end)).paths()}
    steps = [-1]
    for i, effect in enumerate(disks.effects[:end]):
        found = re.fullmatch(r"run/checkpoints/step-(\d+)", effect.operation.to)
        if found and disks.certain_at[i] <= end and effect.operation.to in live:
            steps.append(int(found[1]))
    return max(steps)


@dataclass
class Outcome:
    """What a command did with a disk.

    Attributes:
        name: one of OUTCOMES.
        ended: whether it was run to its end; of ``fit``, whether the ensemble on the disk predicts.
        fault: None if nothing is wrong.
    """

    name: str
    ended: bool = False
    fault: str | None = None


def check(made: Recorded, case: Case, folder: Path, to_the_end: bool) -> Outcome:
    """Rebuild a disk in ``folder`` and give it to the command."""
    folder.mkdir()
    files = made.disks.files(case)
    write(files, folder)
    claim = false_claim(made.disks, case, files)
    start = next(start for start, end in enumerate(made.ends) if case.end <= end)
    argv = [*arguments(made.command, start), *made.command.resume]
    done = process.run([*argv, *made.command.stop.split()], folder, LIMIT)
    outcome = Outcome(REFUSED if done.code == 2 else ANEW, fault=claim or process.fault(done, (0, 2)))
    if found := re.search(r"continues from step ([\d,]+)", done.err):
        outcome.name = RESUMED
    step = int(found[1].replace(",", "")) if found else -1
    durable = durable_step(made.disks, case.end)
    if outcome.fault is None and made.command.resume and step < durable:
        outcome.fault = f"{outcome.name} from step {step}, step {durable} was on the disk: {done.err[-300:]}"
    if outcome.fault is None and "damaged checkpoint" in done.err:
        outcome.fault = f"a damaged checkpoint: {done.err[-300:]}"
    if outcome.fault is None and to_the_end and done.code == 0:
        outcome.ended = True
        done = process.run(argv, folder, LIMIT) if made.command.stop else done
        outcome.fault = process.fault(done, (0,))
        if outcome.fault is None and made.command.kind:
            base = runs.Base(made.command.kind, made.whole[start], made.whole[start], 0.0)
            outcome.fault = runs.difference(base, folder / RUN)
    if outcome.fault is None and done.code == 2 and not made.command.resume:
        return predicts(folder)
    return outcome


def predicts(folder: Path) -> Outcome:
    """Predict with what is left of a ``fit``, which cannot be resumed: as the finished run does, or not at all."""
    finished = folder.with_name("recorded")
    for place in (finished, folder):
        if not (place / PREDICTED).exists():
            done = process.run(["predict", RUN, TABLE, "--out", PREDICTED], place, LIMIT)
    fault = process.fault(done, (0, 2))
    if fault is None and done.code == 0 and not filecmp.cmp(finished / PREDICTED, folder / PREDICTED, shallow=False):
        fault = "the predictions differ"
    return Outcome(REFUSED, done.code == 0, fault)
