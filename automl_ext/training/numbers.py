"""Numbers of a JSON object; numbers as text, in a table with equally many decimals per column."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LARGEST = 1e9  # larger numbers are written with an exponent
MOST_DECIMALS = 6


def numbers_in(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a JSON object by dotted name."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from numbers_in(inner, f"{prefix}{name}.")
        elif isinstance(inner, (int, float)) and not isinstance(inner, bool):
            yield prefix + name, float(inner)


def number(value: float, digits: int = 4) -> str:
    """Format a number with at least ``digits`` significant digits, without an exponent for 1,000 and more."""
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < LARGEST else f"{value:,.{digits}g}"


def alike(values: Sequence[float | None], digits: int = 4) -> list[str]:
    """Format the numbers of a column with equally many decimals; None and numbers that are not finite give a dash.

    The number of decimals is the largest that a number of the column needs to show ``digits`` significant digits.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if max(map(abs, known), default=0.0) >= LARGEST:
        return ["–" if value not in known else f"{value:.{digits}g}" for value in values]
    decimals = max((_decimals(value, digits) for value in known), default=0)
    return ["–" if value not in known else f"{value:,.{decimals}f}" for value in values]


def _decimals(value: float, digits: int) -> int:
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return min(MOST_DECIMALS, max(0, len(mantissa.partition(".")[2]) - int(exponent or 0)))
