"""Files that are either old or new after a crash, never half written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


def fsync_path(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename, fsync the folder."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    fsync_path(temporary)
    os.replace(temporary, path)
    fsync_path(path.parent)


def strict(value: Any, key: str = "") -> Any:
    """``value`` as strict JSON can hold it: tuples become lists, NaN and infinities become None.

    Raises:
        TypeError: anything but dict (string keys), list, tuple, str, int, float, bool and None; names the
            key.
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
