"""Kinds of columns: how each is inferred, and how the user overrides it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.dates import DAY_AND_MONTH, are_dates, date_order
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

KINDS = ("numeric", "categorical", "boolean", "date", "text")
AS_WRITTEN = ("categorical", "text")  # kinds of columns whose values are texts: 007 is not 7
IGNORED = ("constant", "id", "ignore")  # kinds of columns from which nothing is learned
MOST_CODES = 20  # integers with at most this number of values, and a name like "code", are still numbers
NUMBERS = 0.95  # smallest share of a text column's values that are numbers, if it is numeric
MOST_WORDS = 5  # different words that count as missing in a text column of numbers
FEWEST_OF_CLASS = 5  # rows of each class, if it is no accident that the classes are intervals of a column
NEARLY = 0.98  # smallest share of rows in which a column agrees with the target, if it is named
MOST_SHOWN, FIRST_SHOWN = 60, 20  # columns that are printed: all of them, or only the first ones
TEXT_WORDS = 3  # text has on average at least this number of words
BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
# Digits with a sign of percent, a currency or a comma. 192.168.0.1 is not one.
WRITTEN_NUMBER = re.compile(r"(?=.*[%$€£¥,])[-+]?[$€£¥]? ?\d[\d.,' ]*[%$€£¥]?")
ID_NAME = re.compile(r"(?i:(^|[_\W])(id|uuid|guid|index|rownames?|unnamed: 0)$)|[a-z]I[Dd]$")


@dataclass(frozen=True)
class Column:
    """One column of the training table.

    Attributes:
        kind: one of ``KINDS`` or ``IGNORED``.
        why: the reason for the kind.
        missing: texts that stand for a missing number.
        day_first: whether 01/02/2020 is the first of February; None if the column has no such dates.
    """

    name: str
    kind: str
    why: str
    missing: tuple[str, ...] = ()
    day_first: bool | None = None

    @property
    def is_used(self) -> bool:
        return self.kind in KINDS


def find_columns(frame: Any, given: Mapping[str, str]) -> list[Column]:
    """Find the kind of each column of a training table, without its target.

    Args:
        frame: a ``pandas.DataFrame``.
        given: name → kind, the user's choice; "ignore" leaves a column out.

    Raises:
        UserError: ``given`` names a column or a kind that does not exist, or values do not fit a given kind.
    """
    for name, kind in given.items():
        if name not in frame.columns:
            raise UserError(f"type: there is no column {short(name)}; columns: {short(list(frame.columns))}")
        if kind not in (*KINDS, "ignore"):
            raise UserError(f"type: {name}: expected {', '.join(KINDS)} or ignore, got {short(kind)}")
    return [
        _given_column(frame[name], given[name]) if name in given else find_column(frame[name]) for name in frame.columns
    ]


def _given_column(values: Any, kind: str) -> Column:
    """Return a column of a given kind. Missing words and the order of day and month are inferred."""
    name = str(values.name)
    if kind == "numeric" and (words := number_words(values)):
        return Column(name, kind, f"as given; {short(', '.join(words))} counts as missing", words)
    if kind == "date":
        day_first, remark = date_order(values)
        return Column(name, kind, "as given" + remark, day_first=day_first)
    return Column(name, kind, "as given")


def find_column(values: Any) -> Column:
    """Find the kind of one column, a ``pandas.Series``."""
    types = library("pandas").api.types
    name = str(values.name)
    if is_plain_number(values.dtype):  # the common case of wide tables
        array = values.to_numpy()
        array = array[~np.isnan(array)]
        if (distinct := len(np.unique(array))) > 1:
            return _number(name, array, distinct)
    present = values.dropna()
    distinct = present.nunique() if not is_nested(present) else -1
    if distinct < 0:
        return Column(name, "ignore", "its values are lists or objects")
    if distinct == 0 or (distinct == 1 and len(present) == len(values)):
        return Column(name, "constant", "it has one value" if distinct else "all its values are missing")
    if types.is_bool_dtype(values.dtype) or (values.dtype == object and set(present.unique()) <= {True, False}):
        return Column(name, "boolean", "true and false")
    if types.is_datetime64_any_dtype(values.dtype):
        return Column(name, "date", "dates")
    if values.dtype.kind == "m":  # pandas' durations and Arrow's
        return Column(name, "numeric", "durations, in seconds")
    if types.is_complex_dtype(values.dtype):
        return Column(name, "ignore", "its values are complex numbers")
    if types.is_numeric_dtype(values.dtype):
        return _number(name, present, distinct)
    if isinstance(values.dtype, library("pandas").CategoricalDtype):
        return Column(name, "categorical", f"{distinct} categories")
    return _text(name, present.astype(str), distinct)


def is_plain_number(dtype: Any) -> bool:
    """Return whether a type is one of NumPy's integers or floats."""
    return isinstance(dtype, np.dtype) and dtype.kind in "iuf"


def _number(name: str, present: Any, distinct: int) -> Column:
    """Find the kind of a column of numbers: numeric, or an id if no value repeats and the name or the order say so."""
    array = np.asarray(present, dtype=np.float64)
    whole = bool(np.isfinite(array).all() and (array % 1 == 0).all())
    if whole and distinct == len(present) > MOST_CODES:
        consecutive = array.max() - array.min() + 1 == distinct
        if consecutive or ID_NAME.search(name):
            return Column(name, "id", "each row has its own integer")
    return Column(name, "numeric", f"{distinct} different numbers")


def _text(name: str, present: Any, distinct: int) -> Column:
    """Find the kind of a column of strings."""
    lower = {value.strip().lower() for value in present.unique()[:3]}
    if distinct == 2 and lower in BOOLEANS:
        return Column(name, "boolean", " and ".join(sorted(lower)))
    words = number_words(present)
    if words is not None:
        why = f"numbers; {short(', '.join(words))} counts as missing" if words else "numbers as text"
        return Column(name, "numeric", why, words)
    day_first, remark = date_order(present)
    if are_dates(present, day_first):
        return Column(name, "date", "dates as text" + remark, day_first=day_first)
    words = present.str.split().str.len().mean()
    if words >= TEXT_WORDS and distinct > len(present) / 2:
        return Column(name, "text", f"{words:.1f} words on average")
    if distinct > 0.95 * len(present) and len(present) > MOST_CODES:
        return Column(name, "id", "nearly each row has its own value")
    return Column(name, "categorical", f"{distinct} categories")


def number_words(values: Any) -> tuple[str, ...] | None:
    """Return the words that count as missing in a column of numbers as text; None if the column is not numeric."""
    present = values.dropna().astype(str)
    numbers = library("pandas").to_numeric(present, errors="coerce")
    words = tuple(sorted(present[numbers.isna()].unique()))
    return words if numbers.notna().mean() >= NUMBERS and len(words) <= MOST_WORDS else None


def is_nested(present: Any) -> bool:
    """Return whether a column has lists or other containers, which cannot be compared."""
    if isinstance(present.dtype, library("pandas").ArrowDtype):
        present = present.head(1)  # all values have one type
    elif present.dtype != object:
        return False
    return bool(present.map(lambda value: isinstance(value, (list, dict, set, np.ndarray))).any())


def written_numbers(frame: Any, columns: list[Column]) -> list[str]:
    """Return a note for each column of texts that look like numbers, such as 12 % or 1,234.50, or like dates."""
    notes = []
    for column in columns:
        if column.kind not in ("categorical", "text", "id") or column.why == "as given":
            continue
        present = frame[column.name].dropna()
        if not len(present) or not present.map(type).eq(str).all():
            continue
        text, start = present.str.strip(), f"column {column.name!r} is {column.kind}, but its values look like"
        example = short(present.iloc[0])
        if text.str.fullmatch(WRITTEN_NUMBER).mean() >= NUMBERS:
            fix = "remove signs and separators of thousands, with a point for decimals"
            notes.append(f"{start} numbers, such as {example}: {fix}")
        elif text.map(lambda t: bool(DAY_AND_MONTH.search(t))).mean() >= NUMBERS:
            notes.append(f"{start} dates, such as {example}: write them with the year first, as 2020-12-31")
    return notes


def table_of(columns: list[Column]) -> Any:
    """Return a table with the assumptions about each column, for printing."""
    from rich.table import Table
    from rich.text import Text

    table = Table("column", "type", "because", title="types; another one: --type COLUMN=TYPE", title_justify="left")
    shown = columns if len(columns) <= MOST_SHOWN else columns[:FIRST_SHOWN]
    for column in shown:
        table.add_row(Text(column.name), column.kind, Text(column.why))
    if others := Counter(column.kind for column in columns[len(shown) :]):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common())
        table.add_row(f"… {others.total():,} more", "", Text(f"{kinds}; report.html has all"))
    return table


def find_leaks(frame: Any, columns: list[Column], y: Any, is_classification: bool) -> list[str]:
    """Return a sentence on each column that predicts the target (nearly) perfectly, such as a copy of it.

    Perfectly, for classes: each value of the column occurs with one class only, and values repeat; or the classes are
    intervals of the column. For numbers: the order of the rows by the column and by the target is the same.

    Args:
        frame: the cleaned table (:mod:`automl_ext.tabular.table.cleaning`).
        columns: its columns.
        y: class numbers or numbers, [N].
        is_classification: whether ``y`` has class numbers.
    """
    if len(y) < 20:
        return []
    found = []
    target = _Coded(y)
    for column in (c for c in columns if c.is_used):
        values = frame[column.name].to_numpy()
        if column.kind in ("categorical", "text"):
            values = library("pandas").factorize(values)[0].astype(float)
            values[values < 0] = np.nan
        present = ~np.isnan(values)
        if present.sum() < 0.9 * len(y):
            continue
        values, own = _Coded(values[present]), target if present.all() else _Coded(y[present])
        if values.distinct < 2:
            continue
        if _is_perfect(values, own, column, is_classification):
            found.append(f"column {column.name!r} predicts the target perfectly")
        elif (share := _agreement(values, own, column, is_classification)) is not None:
            found.append(f"column {column.name!r} agrees with the target in {100 * share:.1f} % of the rows")
    return found


class _Coded:
    """Numbers as positions among their distinct values.

    Attributes:
        codes: the position of each number, [N].
        counts: how often each distinct value occurs.
    """

    def __init__(self, values: Any) -> None:
        _, codes, self.counts = np.unique(values, return_inverse=True, return_counts=True)
        self.codes, self.distinct = codes.reshape(-1), len(self.counts)

    def ranks(self) -> Any:
        """Return the rank of each number, from 1; equal ones have their mean."""
        return (np.cumsum(self.counts) - (self.counts - 1) / 2)[self.codes]

    def tells(self, other: _Coded) -> bool:
        """Return whether each value always occurs together with the same value of ``other``."""
        return len(np.unique(self.codes * other.distinct + other.codes)) == self.distinct


def _is_perfect(values: _Coded, own: _Coded, column: Column, is_classification: bool) -> bool:
    repeats, is_ordered = values.distinct <= len(values.codes) / 2, column.kind in ("numeric", "date")
    if not is_classification and is_ordered:
        return own.distinct > 1 and bool(abs(np.corrcoef(values.ranks(), own.ranks())[0, 1]) > 1 - 1e-9)
    if repeats and values.tells(own):
        return True
    if not is_classification or not is_ordered or own.counts.min() < FEWEST_OF_CLASS:
        return False
    by_value = own.codes[np.argsort(values.codes, kind="stable")]
    return int((by_value[1:] != by_value[:-1]).sum()) == own.distinct - 1 and values.tells(own)


def _agreement(values: _Coded, own: _Coded, column: Column, is_classification: bool) -> float | None:
    """Return the share of rows in which a column predicts the target, if it is near 1 and not by accident; else None.

    For classes: the share of rows with the most frequent class of their value, for columns with ten rows per value on
    average. For numbers: the share of rows that have nearly the same rank in both. The agreement counts as no accident
    if the column leaves at most a tenth of the rows wrong that would be wrong without it.
    """
    n = len(values.codes)
    if is_classification and values.distinct <= n / 10:
        pairs = np.bincount(values.codes * own.distinct + own.codes, minlength=values.distinct * own.distinct)
        share = pairs.reshape(-1, own.distinct).max(1).sum() / n
    elif not is_classification and column.kind in ("numeric", "date"):
        rank, target = values.ranks() / n, own.ranks() / n
        share = max((abs(other - target) <= 1 - NEARLY).mean() for other in (rank, 1 + 1 / n - rank))
    else:
        return None
    by_chance = own.counts.max() / n
    return float(share) if share >= NEARLY and 1 - share <= 0.1 * (1 - by_chance) else None
