"""Files of tensors with a checksum: best policies, members of an ensemble, exported weights.

A file is a ZIP archive as ``torch.save`` writes it. The archive's comment holds the SHA-256 of all bytes before the
comment. ``torch.load`` and ``unzip`` can read it.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import is_out_of_memory

PREFIX = b"automl_ext weights 1 sha256 "
COMMENT = len(PREFIX) + 64  # bytes of the whole comment
END = b"PK\x05\x06"  # starts the last record of a ZIP archive, 22 bytes and the comment


def write_tensors(path: Path, value: Any) -> None:
    """Write tensors and plain Python to ``path``, atomically and with a checksum."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    data = buffer.getvalue()[:-2] + struct.pack("<H", COMMENT)  # the comment's length ends the last record
    write_atomic(path, data + PREFIX + hashlib.sha256(data).hexdigest().encode())


def read_tensors(path: Path) -> Any:
    """Return the value that :func:`write_tensors` wrote, on the CPU. A file without checksum is read too.

    Raises:
        UserError: the file is missing, not a regular file, truncated, changed, of a later format, or holds other values
            than tensors and plain Python.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'no regular file' if path.exists() else 'missing'}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    body, comment = data[:-COMMENT], data[-COMMENT:]
    if comment.startswith(PREFIX):
        if hashlib.sha256(body).hexdigest().encode() != comment[len(PREFIX) :]:
            raise UserError(f"{path} is damaged: it does not match its SHA-256")
    elif match := re.match(rb"automl_ext weights ([0-9]+) ", comment):
        raise UserError(f"{path} has format {match[1].decode()}, expected 1: a later version of automl_ext wrote it")
    elif data[-22:-18] != END or data[-2:] != b"\0\0":  # neither a comment, nor the end of an archive without one
        raise UserError(f"{path} is damaged: it is truncated or was not written by automl_ext")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} is damaged: {why_unloadable(error)}") from None


def check_fit(value: Any, like: Any, key: str) -> None:
    """Check that ``value`` has the keys of ``like``, and tensors of finite numbers of the same shapes and dtypes.

    Raises:
        ValueError: a key is missing, unexpected or of another kind, or has NaN or an infinity; the message names the
            first such key.
    """
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}: expected a dict, got {type(value).__name__}")
        for name in [*like, *value]:
            if name not in value:
                raise ValueError(f"{key}.{name} is missing")
            if name not in like:
                raise ValueError(f"{key}.{name} is unexpected")
            check_fit(value[name], like[name], f"{key}.{name}")
    elif isinstance(like, Tensor):
        expected, found = (_kind(item) for item in (like, value))
        if expected != found:
            raise ValueError(f"{key}: expected {expected}, got {found}")
        if not value.isfinite().all():
            raise ValueError(f"{key}: expected finite numbers, got NaN or infinity")
    elif like is not None and type(value) is not type(like):
        raise ValueError(f"{key}: expected {type(like).__name__}, got {type(value).__name__}")


def why_unloadable(error: Exception) -> str:
    """Return one line that says why a state cannot be loaded. If the state did not cause the error, raise it again."""
    if isinstance(error, (UserError, OSError)) or is_out_of_memory(error) or type(error).__name__ == "AcceleratorError":
        raise error
    return f"{type(error).__name__}: {short(error)}" if isinstance(error, (KeyError, IndexError)) else short(error)


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
