"""Reading of NumPy's ``.npz`` files that somebody else may have written."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import check_regular, check_size


def read_npz(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the arrays whose names are in ``names``. Also return the names of all members.

    Raises:
        UserError: the file is missing, is not a regular file or not an npz file, is encrypted, or unpacks to more than
            half of the memory; or an array holds Python objects.
    """
    check_regular(path, str(path))  # before it is opened: opening a pipe waits for a writer
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
            # zipfile never reads more of a member than its declared size.
            check_size(path, sum(size for name, size in sizes.items() if name in names))
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if name in names}
    except MemoryError:
        raise UserError(f"{path} declares arrays larger than the memory") from None
    # RuntimeError: encrypted; its subclass NotImplementedError: an unsupported compression
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable npz file of plain arrays: {reason}") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # for a member that is not a .npy file, NumPy returns its bytes
            raise UserError(f"{path}: {name} is not a NumPy array")
    return found, list(sizes)


def read_all(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read arrays that a file must have. Raises UserError as :func:`read_npz`, and if one is missing."""
    arrays, _ = read_npz(path, names)
    if missing := set(names) - set(arrays):
        raise UserError(f"{path}: expected the arrays {', '.join(sorted(missing))}")
    return arrays
