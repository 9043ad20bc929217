"""Reading of files that the user names: a pipe or a device must not hang the program or feed it without end."""

from __future__ import annotations

import stat
from pathlib import Path

from automl_ext.training.errors import UserError


def check_regular(path: Path, name: str) -> None:
    """Check that ``path``, if it exists, is a regular file.

    Args:
        path: the file; links are followed.
        name: what the message calls it.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # the open that follows reports it
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise UserError(f"{name}: expected a regular file, {path} is {kind}")
