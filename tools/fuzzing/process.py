"""Run a command in a forked child, with limits on memory and time. Return its exit code, output and time.

The parent imports torch once. A fork then takes milliseconds, while a new Python process takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RAISED = 70  # exit code of a child whose command raised
MEMORY = 3 << 30  # bytes that a command may add to the parent's address space
IDLE = 20.0  # seconds without CPU time after which a command counts as hanging
LINGER = 30.0  # seconds within which the processes of a command must end after it
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Done:
    """The result of a command.

    Attributes:
        code: exit code; None if the command was killed, by the signal ``killed_by`` or by us at its time limit.
        killed_by: number of the signal, or 0.
        left_behind: processes that the command started still ran LINGER seconds after its end.
    """

    argv: list[str]
    code: int | None
    out: str
    err: str
    seconds: float
    killed_by: int = 0
    timed_out: bool = False
    left_behind: bool = False


def preload() -> None:
    """Import the modules that commands import lazily, so that forked children need not import them."""
    import matplotlib.pyplot  # noqa: F401
    import torch
    import torch._dynamo
    import torch.export

    import automl_ext.cli
    import automl_ext.nas.export.export
    import automl_ext.nas.search.search  # noqa: F401
    from automl_ext_cli import load
    from automl_ext_cli.table import COMMANDS

    for command in COMMANDS.values():
        for name in (command.options, command.run):
            if name and ":" in name:
                load(name)
    with contextlib.suppress(ImportError):
        from sklearn.datasets import load_digits

        load_digits()
    for name in ("optuna", "lightgbm", "xgboost", "pandas"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Importing TensorBoard takes a second in each child, and its files are not under test.
    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]
    torch.set_num_threads(1)
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())  # SDL prints an error without it


def start(argv: Sequence[str], folder: Path, memory: int = MEMORY) -> int:
    """Start a command in ``folder``, in its own process group. Return its PID.

    Its output goes to the files FOLDER.out and FOLDER.err.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # both processes set the group, because either may run first
        return pid
    code = RAISED
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(log(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", encoding="utf-8", errors="replace") for n in (1, 2))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
        code = _call(list(argv))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(argv: list[str]) -> int:
    from automl_ext import cli

    os.environ["COLUMNS"] = "200"
    sys.argv = ["automl-ext", *argv]
    try:
        return cli.main(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return RAISED


def log(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}.{name}")


def wait(pid: int, argv: Sequence[str], folder: Path, limit: float) -> Done:
    """Wait for a started command. Its process group is killed after ``limit`` seconds of CPU time, or when it is idle.

    The limit is not on wall time, which depends on other work on the machine.
    """
    began = changed = time.monotonic()
    used = 0.0
    timed_out = False
    while (status := poll(pid, 1.0)) is None and not timed_out:
        now = cpu_seconds(pid)
        if now > used + 0.01:
            used, changed = now, time.monotonic()
        timed_out = used > limit or time.monotonic() - changed > IDLE
    if status is None:
        end_group(pid)
        _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    left_behind = not timed_out and not group_ends(pid)
    out, err = (log(folder, name).read_text(errors="replace") for name in ("out", "err"))
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Done(list(argv), code, out, err, seconds, killed_by, timed_out, left_behind)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all running processes of a group and of their ended children."""
    return sum(group(pid).values()) / os.sysconf("SC_CLK_TCK")


def group(number: int) -> dict[int, int]:
    """Return the running processes of a group, and the clock ticks that each and its ended children have used."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[2]) == number:
            found[int(folder.name)] = sum(map(int, fields[11:15]))
    return found


def poll(pid: int, limit: float) -> int | None:
    """Return the child's wait status, or None if it still runs after ``limit`` seconds."""
    deadline, pause = time.monotonic() + limit, 0.0005
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(min(pause, max(deadline - time.monotonic(), 0)))
        pause = min(pause * 1.5, 0.02)


def end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def group_ends(pid: int, limit: float = LINGER) -> bool:
    """Return True if all processes of the group end by themselves within ``limit`` seconds. Otherwise kill them."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    end_group(pid)
    return False


def run(argv: Sequence[str], folder: Path, limit: float = 30.0, memory: int = MEMORY) -> Done:
    """Run a command in ``folder`` to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    return wait(start(argv, folder, memory), argv, folder, limit)


def fault(done: Done, codes: Sequence[int] = (0, 1, 2)) -> str | None:
    """Return a description of a command's fault: a hang, crash, traceback or bad error text. None if there is none."""
    if done.timed_out:
        return "hang: idle for too long, or over the limit of CPU time"
    if done.code is None:
        return f"crash: {signal.Signals(done.killed_by).name}"
    if done.code == RAISED or "Traceback (most recent call last)" in done.err + done.out:
        return f"traceback: {raised(done.err + done.out)}"
    if done.left_behind:
        return "processes were left behind"
    if done.code not in codes:
        return f"exit code {done.code}"
    return bad_error_text(done.err) if done.code == 2 else None


def raised(text: str) -> str:
    """Return the exception of a traceback, with the innermost line of automl_ext."""
    places = re.findall(r'File "[^"]*(automl_ext/[^"]+)", line (\d+), in (\S+)', text)
    where = f" at {places[-1][0]}:{places[-1][1]} {places[-1][2]}" if places else ""
    ends = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt|Exit|Warning|Stop\w*)\b.*)$", text, re.MULTILINE)
    return (ends[-1][:160] if ends else "?") + where


def bad_error_text(err: str) -> str | None:
    """Return a description of what is wrong with the error text of exit code 2; None if it is right.

    The last line must be the only line ``error: …``, unless the text is the argument parser's own message.
    """
    lines = [line for line in err.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if not errors:
        parser = any(line.startswith("╭") or re.match(r"\S.*: error: |usage:", line) for line in lines)
        return None if parser else "exit code 2 without an error line"
    if lines[errors[0]].startswith("error: unknown command"):
        return None  # the usage follows
    if len(errors) > 1 or errors[0] != len(lines) - 1:
        return f"an error of {len(lines) - errors[0]} lines: {lines[errors[0]][:100]}"
    return "an empty error" if len(lines[-1]) < 12 else None
