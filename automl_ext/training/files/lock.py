"""The folder of a run, and its lock, with which only one process at a time writes to it.

The kernel holds the lock (``flock``) and releases it when the process ends. The file ``.lock`` also names the process,
for the message, and for file systems on which ``flock`` does not lock out other machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import stat
import weakref
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import fsync_path

LOCK = ".lock"
_held: dict[int, Path] = {}  # descriptor of each lock that this process holds → its path


def _after_fork() -> None:
    """Close the locks in a forked process, which would otherwise hold them after its parent has ended."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


class Lock:
    """A lock of ``folder`` until :meth:`release`, garbage collection or the end of the process.

    Raises:
        UserError: another process, or another Run of this one, holds the lock.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        descriptor = _acquire(folder, path)
        self.release = weakref.finalize(self, _release, path, descriptor, os.getpid())


def is_held_here(folder: Path) -> bool:
    """Return whether the lock file of ``folder`` names a living process of this machine."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        holder, here = _read(descriptor), _this_process()
    finally:
        os.close(descriptor)
    same_machine = holder.get("host") == here["host"] or holder.get("boot") in {here["boot"]} - {None}
    return same_machine and holder.get("started") is not None and _started(holder["pid"]) == holder["started"]


def _acquire(folder: Path, path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{path}: expected a regular file: delete it")
            kernel = _flock(descriptor, folder)
            if _is_at(descriptor, path):  # otherwise the previous holder has just removed the file
                _check_holder(_read(descriptor), folder, kernel)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_this_process()).encode(), 0)
                _held[descriptor] = path
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, folder: Path) -> bool:
    """Take the kernel's lock. Return False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(_in_use(folder, _read(descriptor))) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    return True


def _check_holder(holder: dict[str, Any], folder: Path, kernel: bool) -> None:
    """Raise UserError if the process recorded in the lock file may still be running, although the lock was free."""
    if not holder:
        return
    here = _this_process()
    same_machine = holder.get("host") == here["host"] or holder.get("boot") in {here["boot"]} - {None}
    if not same_machine:
        raise UserError(f"{_in_use(folder, holder)}; if that process has ended, delete {folder / LOCK}")
    if holder["pid"] == here["pid"] and holder.get("started") == here["started"]:
        # The file is a leftover of a released lock, unless there are no kernel locks.
        if not kernel and folder / LOCK in _held.values():
            raise UserError(_in_use(folder, holder))
    elif holder.get("started") is not None and _started(holder["pid"]) == holder["started"]:
        raise UserError(_in_use(folder, holder))


def _in_use(folder: Path, holder: dict[str, Any]) -> str:
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    return f"{folder} is in use by {who}: wait until it has ended, or choose another --out"


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid()), "boot": _boot()}


def _started(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot; None if it does not exist or there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])  # a zombie writes nothing
    except (OSError, IndexError, ValueError):
        return None


def _boot() -> str | None:
    """Return an identifier of the running kernel, which is the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _read(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    known = isinstance(holder, dict) and type(holder.get("pid")) is int and isinstance(holder.get("host"), str)
    return holder if known else {}


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _release(path: Path, descriptor: int, owner: int) -> None:
    if os.getpid() != owner or _held.pop(descriptor, None) is None:
        return  # a forked process has closed the lock
    try:
        with contextlib.suppress(OSError):
            if _is_at(descriptor, path):
                path.unlink()
    finally:
        os.close(descriptor)


class RunFolder:
    """A locked run directory, created if it is absent.

    Attributes:
        entries: the paths that were in it, without the lock.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.made = [path for path in (out, *out.parents) if not path.exists()]
        self.entries: list[Path] | None = None
        self.lock: Lock | None = None
        try:
            out.mkdir(parents=True, exist_ok=True)
            for path in self.made:
                fsync_path(path.parent)
            self.lock = Lock(out)
            self.entries = [path for path in out.iterdir() if path.name != LOCK]
        except BaseException:
            self.close(undo=True)
            raise

    def close(self, undo: bool) -> None:
        """Release the lock. ``undo``: delete the run's files, if the directory was empty before."""
        empty_before = undo and self.entries == []
        with contextlib.suppress(OSError):
            for path in list(self.out.iterdir()) if empty_before else []:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name != LOCK:
                    path.unlink()
        if self.lock is not None:
            self.lock.release()
        if undo:
            with contextlib.suppress(OSError):  # not empty: another process uses it
                for path in self.made:
                    path.rmdir()
