"""The folder of a run: made, locked, and removed again where the run has not used it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from automl_ext.training.files.lock import LOCK, Lock


class RunFolder:
    """The locked run directory, made where it is absent, and how to undo that.

    Attributes:
        entries: what was in it, without the lock.
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
        """Release the lock; ``undo``: delete what the run has made, if the directory was empty before."""
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
            with contextlib.suppress(OSError):  # not empty: somebody else uses it
                for path in self.made:
                    path.rmdir()
