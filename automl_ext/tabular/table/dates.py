"""Dates as text."""

from __future__ import annotations

import re
import warnings
from datetime import datetime, timezone
from typing import Any

import numpy as np

from automl_ext.tabular.extra import library

# A date has a year, a month and, if the year is not first, a day. pandas would take a time of the day for today's.
DATE = re.compile(r"\d{4}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2}|[A-Za-z]{3}.*\b\d{4}\b")
ISO_DATE = re.compile(r"\s*\d{4}-\d{2}-\d{2}")
DAY_AND_MONTH = re.compile(r"(?<!\d)(\d{1,2})([-/.])(\d{1,2})[-/.](?:\d{4}|\d{2})(?!\d)")  # such as 01/02/2020


def date_order(values: Any) -> tuple[bool | None, str]:
    """Find the order of day and month in dates such as 01/02/2020.

    A number above 12 determines the order. Without one, the day comes first in dates with dots, and the month in other
    dates. Dates with dots and the month first are not supported, because they are rare.

    Args:
        values: a ``pandas.Series``.

    Returns:
        Whether the day comes first, None if there are no such dates; and a remark for the user.
    """
    parts = values.dropna().astype(str).str.extract(DAY_AND_MONTH).dropna()
    if parts.empty:
        return None, ""
    is_day, is_month = (parts[[0, 2]].astype(int) > 12).any()
    if is_day or is_month:
        return bool(is_day), ", day first" if is_day else ", month first"
    if (parts[1] == ".").all():
        return True, ", day first because of the dots"
    return False, ", month first assumed, because no number is above 12"


def are_dates(present: Any, day_first: bool | None) -> bool:
    """Return whether all strings are dates with digits, the first 50 tried before the rest."""
    return all(bool(to_dates(part, day_first).notna().all()) for part in (present.head(50), present))


def to_dates(values: Any, day_first: bool | None) -> Any:
    """Convert dates, or texts of dates, to times in UTC; NaT where a value is not a date.

    Args:
        values: a ``pandas.Series``; its other objects, such as periods, are read as texts.
        day_first: whether 01/02/2020 is the first of February. Dates in the other order become NaT. With None, dates
            without a dot and without a number above 12 become NaT, too, because their order is unknown.
    """
    if library("pandas").api.types.is_datetime64_any_dtype(values.dtype):
        return _parsed(values, False)
    texts = values.astype(str)
    starts_with_day, is_wrong = _orders(texts, day_first)
    dates = _parsed(texts.where(~starts_with_day), False)  # not values: pandas.Period is no date for to_datetime
    dates = dates.where(~starts_with_day, _parsed(texts.where(starts_with_day), True))
    return _with_far_dates(texts, dates).where(texts.str.contains(DATE).to_numpy(bool) & ~is_wrong)


def _parsed(values: Any, day_first: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about formats that differ
        to_datetime = library("pandas").to_datetime
        return to_datetime(values, errors="coerce", format="mixed", utc=True, dayfirst=day_first)


def _orders(texts: Any, day_first: bool | None) -> tuple[Any, Any]:
    """Return which texts such as 01/02/2020 have the day first, and which are no dates in the order ``day_first``."""
    parts = texts.str.extract(DAY_AND_MONTH)
    first, second = (parts[i].astype(float).to_numpy() for i in (0, 2))
    dots = (parts[1] == ".").to_numpy(bool)
    can_day, can_month = (first <= 31) & (second <= 12), (first <= 12) & (second <= 31) & ~dots
    if day_first is None:
        is_day, is_month = can_day & (dots | (first > 12)), can_month & (second > 12)
    else:
        is_day, is_month = can_day & day_first, can_month & (not day_first)
    return is_day, parts[0].notna().to_numpy() & ~is_day & ~is_month


def _with_far_dates(texts: Any, dates: Any) -> Any:
    """Fill in ISO dates before 1677 and after 2262, such as 9999-12-31: pandas 2 reads texts in nanoseconds only."""
    far = dates.isna() & texts.str.match(ISO_DATE).to_numpy(bool)
    if not far.any():
        return dates
    dates = dates.dt.tz_localize(None).astype("datetime64[us]")
    dates[far] = np.array([_iso_date(text) for text in texts[far]], dtype="datetime64[us]")
    return dates.dt.tz_localize("UTC")


def _iso_date(text: str) -> datetime | None:
    """Return the time in UTC, without a time zone; None if the text is no date."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))  # Python 3.10 knows no Z
        return moment if moment.tzinfo is None else moment.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
