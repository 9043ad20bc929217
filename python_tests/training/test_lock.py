"""The lock of a run directory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from training_helpers import make, train

from automl_ext.training.errors import UserError
from automl_ext.training.files import lock
from automl_ext.training.files.lock import LOCK, Lock

HERE = socket.gethostname()


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        Lock(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in (f"{folder} is in use by", *words):
        assert word in message, message


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_second_run_is_refused_while_the_first_writes(tmp_path: Path, resume: str | None) -> None:
    out = tmp_path / "run"
    with make(out) as run:
        with pytest.raises(UserError, match=rf"{out} is in use by process {os.getpid()} on {HERE}: wait"):
            make(out, resume=resume)
        run.log(1, loss=1.0)
        run.save(1, {})
    with make(out, resume="auto") as run:
        assert run.step == 1
    assert not (out / LOCK).exists()


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ({}, True),
        ({"host": "other"}, True),  # a container of this machine
        ({"host": "other", "boot": "other"}, False),
        ({"host": "other", "boot": None}, False),
        ({"started": None}, False),
        ({"started": 1}, False),  # another process had this number
        ({"pid": "x"}, False),
    ],
)
def test_which_locks_a_living_process_of_this_machine_holds(tmp_path: Path, change: dict, held: bool) -> None:
    (tmp_path / LOCK).write_text(json.dumps({**lock._this_process(), **change}))
    assert lock.is_held_here(tmp_path) == held
    (tmp_path / LOCK).unlink()
    assert not lock.is_held_here(tmp_path)


def test_a_run_that_is_forgotten_is_unlocked(tmp_path: Path) -> None:
    run = make(tmp_path)
    del run
    make(tmp_path, resume="auto").close()


def end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_the_lock_dies_with_its_process_whatever_that_has_forked(tmp_path: Path) -> None:
    """The holder forks a child and is killed; the child keeps running."""
    ready, wait = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        held = Lock(tmp_path)
        if os.fork() == 0:
            os.write(ready[1], b"%d\n" % os.getpid())
            os.close(wait[1])
            os.read(wait[0], 1)  # until the test ends
            os._exit(0)
        time.sleep(60)
        del held
        os._exit(0)
    try:
        child = int(os.read(ready[0], 20))
        refused(tmp_path, f"process {holder} on {HERE}")
        end(holder)
        assert (tmp_path / LOCK).exists()
        Lock(tmp_path).release()
        os.kill(child, 0)  # is alive
    except BaseException:
        end(holder)
        raise
    finally:
        os.close(wait[1])
    assert not (tmp_path / LOCK).exists()


def holder(folder: Path, **changed: object) -> None:
    facts = {"pid": os.getppid(), "host": HERE, "started": lock._started(os.getppid()), "boot": lock._boot()}
    (folder / LOCK).write_text(json.dumps(facts | changed))


def test_whose_lock_is_taken_over(tmp_path: Path) -> None:
    holder(tmp_path)
    refused(tmp_path, f"process {os.getppid()} on {HERE}")  # is alive, whatever the kernel's lock says
    holder(tmp_path, host="elsewhere", boot="other")
    refused(tmp_path, "on elsewhere", f"if that process has ended, delete {tmp_path / LOCK}")
    holder(tmp_path, host="elsewhere", boot=None)
    refused(tmp_path, "on elsewhere")
    for dead in (
        {"started": 1},
        {"pid": 2**22 + 1},
        {"pid": 2**22 + 1, "host": "container"},
        {"pid": "x"},
        {"host": 1},
    ):
        holder(tmp_path, **dead)
        Lock(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b"{}", b'{"pid": {}}', b"[" * 4000])
def test_a_damaged_lock_file_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK).write_bytes(content)
    Lock(tmp_path).release()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_is_no_file(tmp_path: Path) -> None:
    train(tmp_path)
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(UserError, match=r"\.lock: expected a regular file"):
        make(tmp_path, resume="auto")
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UserError, match="cannot use the run directory"):
        make(tmp_path, resume="auto")


def test_where_the_file_system_has_no_locks_the_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    held = Lock(tmp_path)
    refused(tmp_path, f"process {os.getpid()} on {HERE}")
    held.release()
    holder(tmp_path)
    refused(tmp_path, f"process {os.getppid()}")
    holder(tmp_path, started=1)
    Lock(tmp_path).release()
