"""Functions that read untrusted files. They neither crash nor hang for any kind or content of file."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError

LARGEST = 64 << 20  # bytes; real configurations and results have at most a few MB
DEEPEST = 100  # levels of nesting; configurations have four


def check_regular(path: Path, name: str) -> None:
    """Check that ``path``, if it exists, is a regular file.

    Args:
        path: the file; links are followed.
        name: its name in the message.

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
    """Return the number of bytes that a data file may unpack to: half of the memory of this machine or container."""
    from automl_ext.training.machine.memory import machine_memory  # loads torch

    return machine_memory() // 2


def check_size(path: Path, size: int) -> None:
    """Check that ``path`` unpacks to at most :func:`largest_data` bytes.

    Raises:
        UserError: it is larger; the message has both sizes.
    """
    if size > (largest := largest_data()):
        raise UserError(
            f"{path} unpacks to {size / 2**30:.1f} GiB, expected at most {largest / 2**30:.1f}, half of the memory"
        )


def read_small(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 64 MiB.

    Raises:
        UserError: the file is a folder, pipe or device, or too large.
        OSError: the file is missing or unreadable.
    """
    size = path.stat().st_size
    check_regular(path, str(path))  # before it is opened: opening a pipe waits for a writer
    if size > LARGEST:
        raise UserError(f"{path}: expected at most {LARGEST >> 20} MiB, got {size >> 20}")
    with path.open("rb") as file:
        return file.read(LARGEST + 1)  # a file in /proc has size 0 and may have no end


def read_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        UserError: the file is unreadable, not UTF-8, not JSON or nested too deeply, or has an integer with thousands of
            digits.
    """
    try:
        value = json.loads(read_small(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {short(error)}") from None
    if not is_shallow(value):
        raise UserError(f"{path} is nested more than {DEEPEST} levels deep")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises the same errors as :func:`read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def is_shallow(value: Any) -> bool:
    """Return whether lists and dicts in ``value`` have at most ``DEEPEST`` levels.

    The function is a loop, because the depth of recursion is limited.
    """
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for parent in level
            if isinstance(parent, (dict, list))
            for item in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return True
    return False


def short(value: object) -> str:
    """Return one line of at most 200 characters: an exception's message, or another value's ``repr``."""
    try:
        text = (str(value) or type(value).__name__) if isinstance(value, BaseException) else repr(value)
    except (ValueError, RecursionError):  # repr fails for huge integers and deeply nested lists
        text = f"a large {type(value).__name__}"
    text = " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).split())  # torch's messages have bold text
    return text if len(text) <= 200 else text[:197] + "..."
