"""Small files from outside, read so that no content and no kind of file can crash or hang the reader."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError

LARGEST = 64 << 20  # bytes of a configuration or a result; the largest real ones have a few MB
DEEPEST = 100  # levels of nesting; a configuration has four


def read_small(path: Path) -> bytes:
    """The bytes of a regular file of at most 64 MiB.

    Raises:
        UserError: a folder, pipe or device, or too large.
        OSError: missing or unreadable.
    """
    status = path.stat()  # before it is opened: opening a pipe waits for a writer
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: expected a regular file")
    if status.st_size > LARGEST:
        raise UserError(f"{path}: expected at most {LARGEST >> 20} MiB, got {status.st_size >> 20}")
    with path.open("rb") as file:
        return file.read(LARGEST + 1)  # a file in /proc has size 0 and may have no end


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: unreadable, not UTF-8, not JSON, nested too deeply, or an integer with thousands of digits.
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
    """The JSON object in a file; raises as :func:`read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def is_shallow(value: Any) -> bool:
    """Whether lists and dicts in ``value`` are nested at most ``DEEPEST`` levels. A loop: recursion has limits."""
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
    """One line of at most 200 characters: an exception's message, or another value's ``repr``."""
    try:
        text = (str(value) or type(value).__name__) if isinstance(value, BaseException) else repr(value)
    except (ValueError, RecursionError):  # an integer with thousands of digits; a deep list
        text = f"a large {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."
