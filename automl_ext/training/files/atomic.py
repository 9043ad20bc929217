"""Atomic writes: after a crash, a file has either its old or its new contents."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

STANDARD_OUTPUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def fsync_path(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add ``path`` to an OSError that names no file, such as the error of a write on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_atomic(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename, fsync the folder. A failed write leaves no temporary file.

    Raises:
        OSError: the file cannot be written, or ``path`` is a device or a pipe, which the renaming would replace.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path):
            temporary.write_bytes(data)
            fsync_path(temporary)
            os.replace(temporary, path)
            fsync_path(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_output(path: Path, data: bytes) -> None:
    """Write a file that the user named. Devices and pipes are not replaced, and symbolic links are followed."""
    if str(path) in STANDARD_OUTPUT:  # may be redirected to a file, which has its own position
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    elif is_special(path):
        with naming(path), path.open("ab") as file:
            file.write(data)
    else:
        write_atomic(Path(os.path.realpath(path)), data)


def is_special(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a folder, or a link to an open file descriptor."""
    opened = str(path) in STANDARD_OUTPUT or str(path).startswith(("/dev/fd/", "/proc/"))
    return opened or (path.exists() and not path.is_file())


def check_writable(path: Path) -> None:
    """Create the folder of ``path`` and an empty file in it, to find errors before a long computation.

    Raises:
        OSError: the folder cannot be created or written, or ``path`` is a folder.
    """
    if not is_special(path):
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if is_special(path):
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch()
    temporary.unlink()


def save_tensors(value: Any, path: Path) -> None:
    """Call ``torch.save``, but raise OSError for a failed write: torch reports a full disk as RuntimeError."""
    try:
        with naming(path), path.open("wb") as file:
            torch.save(value, file)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        number = cause.errno if isinstance(cause, OSError) and cause.errno is not None else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None


def write_picture(picture: Any, path: Path, **options: Any) -> None:
    """Save a matplotlib figure atomically, in the format of ``path``'s suffix."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format=path.suffix.removeprefix("."), **options)
    write_atomic(path, buffer.getvalue())


def strict(value: Any, key: str = "") -> Any:
    """Convert ``value`` for strict JSON: tuples become lists, NaN and infinities become None.

    Raises:
        TypeError: a value is not a dict (string keys), list, tuple, str, int, float, bool or None; the message
            names the key.
    """
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{key or 'the top level'}: expected string keys, got {name!r}")
        return {name: strict(item, f"{key}.{name}" if key else name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item, f"{key}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(f"{key or 'the top level'}: {type(value).__name__} is not plain Python")


def write_json(path: Path, value: Any) -> None:
    """Write strict, indented JSON atomically."""
    write_atomic(path, (json.dumps(strict(value), indent=2, allow_nan=False) + "\n").encode())
