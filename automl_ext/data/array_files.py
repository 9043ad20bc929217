"""Readers of images stored as arrays: scikit-learn's digits, idx files (Fashion-MNIST) and NumPy's ``.npz``."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.data.source import Source, array_part
from automl_ext.training.errors import UserError
from automl_ext.training.files.npz import read_npz
from automl_ext.training.files.reading import check_size

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NPZ_NAMES = "images and labels (and test_images, test_labels), or x_train and y_train (and x_test, y_test)"


def digits() -> Source:
    """Load scikit-learn's digits: 1,797 gray images of 8×8 pixels, with values 0 … 16 scaled to 0 … 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('--data digits: needs scikit-learn: pip install "automl_ext[data]"') from None
    found = load_digits()
    images = torch.from_numpy(np.rint(found.images * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(found.target.astype(np.int64))
    return Source(tuple(str(i) for i in range(10)), array_part(images[:, None], labels))


def fashion_mnist(folder: Path) -> Source:
    """Read ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, gzipped or not. The t10k files are the test part.

    Raises:
        UserError: a file is missing, truncated or of another format, or the numbers of images and labels differ.
    """
    parts = []
    for prefix in ("train", "t10k"):
        images_path = _idx_path(folder, f"{prefix}-images-idx3-ubyte")
        labels_path = _idx_path(folder, f"{prefix}-labels-idx1-ubyte")
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise UserError(f"{images_path} has {len(images)} images, {labels_path} has {len(labels)} labels")
        if not images.numel():
            raise UserError(f"{images_path} has no images")
        if labels.max() >= len(FASHION_CLASSES):
            raise UserError(f"{labels_path}: label {int(labels.max())}, expected 0 to 9")
        parts.append(array_part(images[:, None], labels.long()))
    return Source(FASHION_CLASSES, *parts)


def _idx_path(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(f"{folder} has no file {name}.gz or {name}")


def read_idx(path: Path, dims: int) -> Tensor:
    """Read an idx file of unsigned bytes with ``dims`` dimensions, gzipped if its name ends in ``.gz``.

    Format: two zero bytes, the byte 8 (type unsigned byte), the number of dimensions, big-endian int32 sizes, the data.

    Raises:
        UserError: the file is unreadable or too large, has a wrong magic number, or its length does not match its
            sizes.
    """
    start, magic = 4 + 4 * dims, bytes((0, 0, 8, dims))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(start)
            if head[:4] != magic:
                raise UserError(f"{path}: magic number 0x{head[:4].hex()}, expected 0x{magic.hex()}")
            sizes = [int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4)]
            check_size(path, math.prod(sizes))
            data = file.read(math.prod(sizes) + 1)  # one byte more than expected: a gzip file may unpack to any size
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except MemoryError:
        raise UserError(f"cannot read {path}: its data are larger than the free memory") from None
    if len(head) < start or len(data) != math.prod(sizes):
        got = f"{len(head) + len(data)}{' or more' * (len(data) > math.prod(sizes))}"
        raise UserError(f"{path}: {got} bytes, expected {start + math.prod(sizes)} (truncated or damaged)")
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(sizes)


def npz(path: Path) -> Source:
    """Read the arrays ``images`` and ``labels``, or Keras' ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Images are uint8, or floats in [0, 1] (scaled to 0 … 255 and rounded). Their shape is ``[N, H, W]`` (gray),
    ``[N, H, W, C]`` or ``[N, C, H, W]`` with C = 1 or 3; exactly one of the second and the last axis may be 1 or 3.
    Labels are integers ``[N]`` or ``[N, 1]``. The classes are the distinct labels in increasing order.

    Raises:
        UserError: the file is not an npz file, too large or encrypted, or an array is missing or has an unsuitable
            shape, type or range. The message names the file and the array.
    """
    arrays, present = read_npz(path, _KNOWN)
    for names in _NAMES:
        if names[0] in arrays and names[1] in arrays:
            break
    else:
        raise UserError(f"{path} contains {', '.join(present) or 'no arrays'}; expected {NPZ_NAMES}")
    if (names[2] in arrays) != (names[3] in arrays):
        raise UserError(f"{path}: {names[2]} and {names[3]} must come together")
    images, labels = _pair(path, arrays, names[0], names[1])
    values = np.unique(labels)
    classes = tuple(str(value) for value in values.tolist())
    train = array_part(images, torch.from_numpy(np.searchsorted(values, labels)))
    if names[2] not in arrays:
        return Source(classes, train)
    test_images, test_labels = _pair(path, arrays, names[2], names[3])
    unknown = np.setdiff1d(test_labels, values)
    if unknown.size:
        raise UserError(f"{path}: {names[3]} has the label {unknown[0]}, which {names[1]} does not contain")
    return Source(classes, train, array_part(test_images, torch.from_numpy(np.searchsorted(values, test_labels))))


_NAMES = (("images", "labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))
_KNOWN = {name for names in _NAMES for name in names}


def _pair(path: Path, arrays: dict[str, Any], images_name: str, labels_name: str) -> tuple[Tensor, np.ndarray]:
    images = to_uint8(f"{path}: {images_name}", arrays[images_name])
    labels = arrays[labels_name]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{path}: {labels_name} is {labels.dtype} {list(labels.shape)}, expected integers [N] or [N, 1]"
        )
    if len(images) != len(labels):
        raise UserError(f"{path}: {images_name} has {len(images)} images, {labels_name} has {len(labels)} labels")
    return images, labels


def to_uint8(name: str, array: np.ndarray) -> Tensor:
    """Return images as uint8 [N, C, H, W]; :func:`npz` says which arrays are images. ``name`` is for messages."""
    shape = list(array.shape)
    if array.size == 0 or array.ndim not in (3, 4):
        raise UserError(f"{name} has shape {shape}, expected a non-empty array [N, H, W], [N, H, W, C] or [N, C, H, W]")
    if array.ndim == 3:
        array = array[:, None]
    elif (array.shape[1] in (1, 3)) == (array.shape[3] in (1, 3)):
        raise UserError(f"{name} has shape {shape}: either the second or the last axis must be 1 or 3, the channels")
    elif array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # also False for NaN
            raise UserError(f"{name} has floats from {low} to {high}, expected floats in [0, 1], not normalized")
        array = np.rint(array.astype(np.float32) * 255)
    elif array.dtype != np.uint8:
        raise UserError(f"{name} is {array.dtype}, expected uint8 or floats in [0, 1]")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.uint8))
