"""Data frames from the installed packages of R, read without R.

A package has its data in files ``data/NAME.rda``, or in a lazy-load database: ``data/Rdata.rdx`` names for each object
its place in ``data/Rdata.rdb``, where it is compressed.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

VARIABLE = "AUTOML_EXT_R_LIBRARY"
DEFAULT = "/usr/lib/R/site-library"  # Debian's packages r-cran-…


def library() -> Path:
    """Return the folder of R's packages: the environment variable's, or Debian's."""
    return Path(os.environ.get(VARIABLE, DEFAULT))


def read_frame(package: str, name: str) -> pd.DataFrame:
    """Return a data frame of an R package.

    Raises:
        FileNotFoundError: the package or the object does not exist; the message names the folder.
    """
    import rdata

    folder = library() / package / "data"
    if (path := folder / f"{name}.rda").is_file():
        return rdata.read_rda(path)[name]
    if not (index := folder / "Rdata.rdx").is_file():
        raise FileNotFoundError(
            f"{folder}: expected data of the R package {package} (Debian: r-cran-{package.lower()}); {VARIABLE} names "
            "the folder of R's packages"
        )
    content = rdata.read_rds(index)
    places = {str(key): [int(number) for number in place] for key, place in content["variables"].items()}
    if name not in places:
        raise FileNotFoundError(f"{index}: expected an object {name}")
    start, length = places[name]
    with (folder / "Rdata.rdb").open("rb") as file:
        file.seek(start)
        chunk = file.read(length)
    kind = int(next(iter(content["compressed"])))
    frame: Any = rdata.read_rds(io.BytesIO(_unpacked(chunk, kind)))
    return frame


def _unpacked(chunk: bytes, kind: int) -> bytes:
    """Decompress an object: 4 bytes with its size, then zlib (kind 1), or a byte that names the method (2 and 3)."""
    if kind == 1:
        return zlib.decompress(chunk[4:])
    method, body = chunk[4:5], chunk[5:]
    if method == b"2":
        return bz2.decompress(body)
    if method == b"Z":
        return lzma.decompress(body, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
    return body if method == b"0" else zlib.decompress(body)
