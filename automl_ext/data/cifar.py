"""Reader of the official archives of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): binary version or Python version.

The pickles of the Python version are read without executing code (:mod:`automl_ext.training.files.data_pickle`).
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

from automl_ext.data.source import Part, Source, array_part
from automl_ext.training.errors import UserError
from automl_ext.training.files.data_pickle import Array, load_data
from automl_ext.training.files.reading import check_regular, short

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LARGEST = 1 << 28  # bytes of an unpacked archive, or of one file; the official archives have 187 MB
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


class _Format(NamedTuple):
    """Names of the files in one version of an archive, and where a record or a pickle has the label."""

    folder: str
    train: tuple[str, ...]
    test: str
    classes: str  # file with the names of the classes
    label_bytes: int = 0  # binary version: bytes before the pixels, of which the last one is the label
    labels: str = ""  # Python version: key of the labels
    names: str = ""  # Python version: key of the names of the classes

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.classes)


_FORMATS = {
    "cifar10": (
        _Format("cifar-10-batches-bin", tuple(f"{b}.bin" for b in _BATCHES), "test_batch.bin", "batches.meta.txt", 1),
        _Format("cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", 0, "labels", "label_names"),
    ),
    "cifar100": (
        _Format("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 2),
        _Format("cifar-100-python", ("train",), "test", "meta", 0, "fine_labels", "fine_label_names"),
    ),
}


def cifar(path: Path, kind: str) -> Source:
    """Read an official archive, whose test images are the test part. The labels of CIFAR-100 are the 100 fine ones.

    Args:
        path: the ``.tar.gz`` file, the unpacked folder, or the folder that contains it.
        kind: cifar10 or cifar100.

    Raises:
        UserError: a file is missing or damaged; the message names it.
    """
    formats = _FORMATS[kind]
    wanted = {name for format_ in formats for name in format_.files}
    files = _from_folder(path, formats) if path.is_dir() else _from_tar(path, wanted)
    for format_ in formats:
        if format_.train[0] in files:
            break
    else:
        raise UserError(f"{path}: expected a file {' or '.join(format_.train[0] for format_ in formats)}, found none")
    missing = [name for name in format_.files if name not in files]
    if missing:
        raise UserError(f"{path}: no file {', '.join(missing)}")
    classes = _class_names(f"{path}: {format_.classes}", files[format_.classes], format_)
    train = [_batch(f"{path}: {name}", files[name], format_, len(classes)) for name in format_.train]
    test = _batch(f"{path}: {format_.test}", files[format_.test], format_, len(classes))
    return Source(classes, _part(train), _part([test]))


def _part(batches: list[tuple[np.ndarray, np.ndarray]]) -> Part:
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return array_part(torch.from_numpy(images).view(-1, *SHAPE), torch.from_numpy(labels.astype(np.int64)))


def _batch(where: str, data: bytes, format_: _Format, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [N, 3072] and labels [N]."""
    images: np.ndarray
    labels: np.ndarray
    if format_.label_bytes:
        size = format_.label_bytes + PIXELS
        if not data or len(data) % size:
            raise UserError(f"{where}: {len(data)} bytes, expected a multiple of {size} (truncated or damaged)")
        records = np.frombuffer(data, np.uint8).reshape(-1, size)
        images, labels = records[:, format_.label_bytes :], records[:, format_.label_bytes - 1]
    else:
        content = _unpickled(where, data)
        found = _entry(where, content, "data")
        images = found.values if isinstance(found, Array) else np.empty(0)
        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != PIXELS or not len(images):
            raise UserError(f"{where}: data: expected uint8 [N, {PIXELS}], got {images.dtype} {list(images.shape)}")
        numbers = _entry(where, content, format_.labels)
        if type(numbers) is not list or len(numbers) != len(images) or not all(type(n) is int for n in numbers):
            raise UserError(f"{where}: {format_.labels}: expected a list of {len(images)} integers, one per image")
        labels = np.array(numbers)
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"{where}: a label is out of range, expected 0 to {classes - 1}")
    return images, labels


def _class_names(where: str, data: bytes, format_: _Format) -> tuple[str, ...]:
    if format_.label_bytes:
        names: Any = data.decode(errors="replace").split("\n")
        names = [name.strip() for name in names if name.strip()]
    else:
        names = _entry(where, _unpickled(where, data), format_.names)
    if type(names) is not list or not 0 < len(names) <= 256 or not all(type(name) is str for name in names):
        raise UserError(f"{where}: expected the names of the classes")
    return tuple(names)


def _unpickled(where: str, data: bytes) -> Any:
    try:
        return load_data(io.BufferedReader(io.BytesIO(data)), len(data))
    except pickle.UnpicklingError as error:
        raise UserError(f"{where}: not a batch of CIFAR's Python version: {short(error)}") from None


def _entry(where: str, content: Any, key: str) -> Any:
    if type(content) is not dict or key not in content:
        raise UserError(f"{where}: expected a dict with {key!r}")
    return content[key]


def _from_folder(path: Path, formats: Collection[_Format]) -> dict[str, bytes]:
    """Read the files of the first format of which a training file is in the folder."""
    for format_ in formats:
        for folder in (path, path / format_.folder):
            if (folder / format_.train[0]).exists():
                return {name: _read(folder / name) for name in format_.files if (folder / name).exists()}
    return {}


def _read(path: Path) -> bytes:
    check_regular(path, "data")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise UserError(f"{path}: expected at most {LARGEST >> 20} MiB")
    return data


def _from_tar(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read the regular files with these names from a tar file, gzipped or not. Nothing is unpacked to disk.

    The archive is decompressed into memory up to ``LARGEST`` bytes, so that no size that it declares is trusted.
    """
    data = _read(path)
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise UserError(f"{path} unpacks to more than {LARGEST >> 20} MiB; it is not an archive of CIFAR")
        found: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in names and name not in found and member.isreg() and member.size <= len(data):
                    opened = archive.extractfile(member)
                    assert opened is not None  # a regular file
                    found[name] = opened.read()
        return found
    except UserError:
        raise
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(f"cannot read {path}, expected a tar.gz archive or a folder: {short(error)}") from None
