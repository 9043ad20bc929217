"""Checks of data files before they are read: pipes may hang, and compressed files may unpack to anything."""

from __future__ import annotations

import os
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


def largest_data() -> int:
    """The number of bytes that a data file may unpack to: half of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def check_size(path: Path, size: int) -> None:
    """Check that ``path`` unpacks to at most :func:`largest_data` bytes.

    Raises:
        UserError: it is larger; gives both sizes.
    """
    if size > (largest := largest_data()):
        raise UserError(
            f"{path} unpacks to {size / 2**30:.1f} GiB, expected at most {largest / 2**30:.1f}, half of the memory"
        )
