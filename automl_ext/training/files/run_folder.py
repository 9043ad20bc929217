"""The folder of a run: it is created and locked, and removed again if the run does not use it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from automl_ext.training.files.lock import LOCK, Lock


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
