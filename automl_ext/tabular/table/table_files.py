"""Reads tables from files, and checks tables that are given."""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.target import as_written
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import check_regular, check_size, short

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_table(path: Path, texts: Collection[str] = (), target: str | None = None) -> Any:
    """Read a CSV or Parquet file into a ``pandas.DataFrame``.

    Args:
        path: NAME.csv, NAME.csv.gz or NAME.parquet; the first line of a CSV file has the names of the columns.
        texts: columns of a CSV file whose values stay as they are written, such as 007. Otherwise pandas converts a
            column to numbers if all of its values are numbers.
        target: column of classes or numbers; in a CSV file, it is read by :func:`.target.as_written`.

    Raises:
        UserError: the file is missing, empty, of another kind, or unreadable; or two columns have one name.
        ModuleNotFoundError: pandas, or pyarrow for Parquet, is missing.
    """
    pandas = library("pandas")
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: expected a file {' or '.join(SUFFIXES)}")
    check_regular(path, str(path))
    try:
        check_size(path, path.stat().st_size)
        if path.suffix == ".parquet":
            library("pyarrow")
            frame = pandas.read_parquet(path)
        else:
            header = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
            check_commas(list(header.iloc[0]), path)
            repeated_names([name for name in header.iloc[0] if name], str(path))
            with warnings.catch_warnings():  # without index_col, pandas takes the first columns for names of the rows
                warnings.simplefilter("error", pandas.errors.ParserWarning)
                frame = pandas.read_csv(path, low_memory=False, dtype=dict.fromkeys(texts, str), index_col=False)
            if target in frame.columns:
                only = {"usecols": [frame.columns.get_loc(target)], "dtype": str, "index_col": False}
                written = pandas.read_csv(path, keep_default_na=False, na_values=[""], **only)
                frame[target] = as_written(frame[target], written[target])
    except pandas.errors.ParserWarning:
        raise UserError(f"{path}: expected as many values in each row as names in the first line; got more") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, OverflowError, EOFError, LookupError, TypeError, NotImplementedError, zlib.error) as error:
        raise UserError(f"{path} is not a readable table: {short(error)}") from None
    return check_frame(frame, str(path))


def check_commas(header: list[str], path: Path) -> None:
    """Raise UserError if the names of the columns are separated by something else than commas."""
    for separator in (";", "\t"):
        if len(header) == 1 and separator in header[0] and header[0].replace("\t", "").isprintable():
            raise UserError(
                f"{path}: expected commas between the columns, got {separator!r} in the first line; convert the file, "
                f"or read it with pandas.read_csv(…, sep={separator!r}) and call automl_ext.tabular.fit in Python"
            )


def check_frame(frame: Any, name: str) -> Any:
    """Return a table whose column names are strings, whose rows are numbered from 0, and whose numbers are numeric.

    Columns of objects that are all numbers, as a transposed table has them, become columns of numbers.

    Raises:
        UserError: it is not a ``pandas.DataFrame``, has no columns, or has two columns of one name.
    """
    pandas = library("pandas")
    if not isinstance(frame, pandas.DataFrame):
        raise UserError(f"{name}: expected a pandas.DataFrame, got {type(frame).__name__}")
    if not len(frame.columns):
        raise UserError(f"{name}: expected a table with columns, got none")
    names = [str(column) for column in frame.columns]
    repeated_names(names, name)
    frame = frame.reset_index(drop=True)
    frame.columns = names
    for column in frame.columns[frame.dtypes == "object"]:
        if pandas.api.types.infer_dtype(frame[column]) == "decimal":
            frame[column] = frame[column].astype(float)
    return frame.infer_objects()


def repeated_names(names: list[str], source: str) -> None:
    """Raise UserError if a name occurs twice: pandas would silently rename the second column of a CSV file."""
    repeated = [column for column, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{source}: expected different names of columns, got {short(repeated[0])} twice")
