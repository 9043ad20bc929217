"""Cleaning: a table as the user has it becomes numbers and texts, row by row.

Nothing is learned here, and a row's result does not depend on the other rows.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.columns import BOOLEANS, Column, is_plain_number
from automl_ext.tabular.table.dates import to_dates
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

WHOLE = re.compile(r"^(-?\d+)\.0$")
TRUTH = dict.fromkeys((*(word for pair in BOOLEANS for word in pair), "0", "0.0"), 0.0)
TRUTH |= dict.fromkeys(("true", "yes", "t", "y", "1", "1.0"), 1.0)


def clean(frame: Any, columns: list[Column]) -> Any:
    """Return a table with the used columns: float64 numbers with NaN, and texts with None.

    Booleans become 0 and 1, dates become days since 1970, and infinite numbers count as missing.

    Raises:
        UserError: a column is missing, or has a value that does not fit its kind; the message names both.
    """
    pandas = library("pandas")
    used = [column for column in columns if column.is_used]
    if absent := [column.name for column in used if column.name not in frame.columns]:
        raise UserError(f"the table lacks the columns {short(', '.join(absent))}, from which the models predict")
    cleaned = {column.name: _CLEANERS[column.kind](frame[column.name], column) for column in used}
    return pandas.DataFrame(cleaned, index=frame.index)


def _numbers(values: Any, column: Column) -> Any:
    pandas = library("pandas")
    if is_plain_number(values.dtype):
        array = values.to_numpy(dtype=np.float64)
        return np.where(np.isfinite(array), array, np.nan)
    if pandas.api.types.is_datetime64_any_dtype(values.dtype):
        raise UserError(f"column {column.name!r}: expected numbers, got dates")
    if pandas.api.types.is_complex_dtype(values.dtype):
        raise UserError(f"column {column.name!r}: expected real numbers, got complex ones")
    if values.dtype.kind == "m":
        values = values.dt.total_seconds()
    if not pandas.api.types.is_numeric_dtype(values.dtype):
        values = values.astype(object).where(values.notna(), None)
        values = values.where(~values.isin(column.missing), None)
        numbers = pandas.to_numeric(values, errors="coerce")
        _refuse(values, numbers.isna(), column, "a number")
        values = numbers
    array = np.asarray(values.astype("float64"))
    return np.where(np.isfinite(array), array, np.nan)


def _booleans(values: Any, column: Column) -> Any:
    words = _texts(values, column)
    found = np.array([np.nan if w is None else TRUTH.get(w.strip().lower(), np.nan) for w in words])
    _refuse(values, np.isnan(found), column, "true or false")
    return found


ORDERS = {
    True: "a date with the day before the month",
    False: "a date with the month before the day, without dots",
    None: "a date with the year first, because the order of day and month is not known",
}


def _dates(values: Any, column: Column) -> Any:
    pandas = library("pandas")
    if pandas.api.types.is_numeric_dtype(values.dtype) and values.notna().any():
        raise UserError(f"column {column.name!r}: expected dates, got numbers")
    dates = to_dates(values, column.day_first)
    failed = dates.isna() & values.notna()
    if failed.any():
        in_other_order = to_dates(values, True).notna() | to_dates(values, False).notna()
        _refuse(values, failed & in_other_order, column, ORDERS[column.day_first])
        _refuse(values, failed, column, "a date")
    times = dates.dt.tz_localize(None).to_numpy()
    since_1970 = times.view(f"timedelta64[{np.datetime_data(times.dtype)[0]}]")  # nanoseconds would overflow in 2262
    return since_1970 / np.timedelta64(1, "D")


def _texts(values: Any, column: Column) -> Any:
    """Return texts; 3.0 and 3 are the same text, because a missing value turns a file's integers into floats."""
    found = np.empty(len(values), dtype=object)
    codes, distinct = library("pandas").factorize(values.astype(object))
    texts = np.array([*(as_text(value) for value in distinct), None], dtype=object)
    found[:] = texts[codes]  # code -1, a missing value, takes the last
    return found


def as_text(value: Any) -> str:
    """Return the text of one category, without the ".0" of whole numbers."""
    if isinstance(value, str):
        return WHOLE.sub(r"\1", value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


_CLEANERS = {"numeric": _numbers, "boolean": _booleans, "date": _dates, "categorical": _texts, "text": _texts}


def _refuse(values: Any, failed: Any, column: Column, expected: str) -> None:
    """Raise UserError for the first value that is present but did not become ``expected``.

    The index of ``values`` has the numbers of the rows in the given table, which may have lost some since.
    """
    wrong = np.asarray(failed) & np.asarray(values.notna())
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"column {column.name!r}, row {values.index[row] + 1}: expected {expected}, got {short(values.iloc[row])}"
        )
