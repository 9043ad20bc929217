"""Numbers of tables: ``rl_dqn ratio .2f`` names a file of benchmarks/results/, the steps to a number, and a format.

Steps are applied from left to right, and quoted where they contain a space:

    key          the value of a key; of a list: the values of its elements
    3            an element of a list, or the value of an object's fourth key
    key=value    the elements of a list with this value; the sizes of a shape are joined by ``x``
    mean         of a list of numbers; also median, min, max, sum, count; a key of this name comes first
    *1e6, /60    a factor, a divisor

Several numbers are joined by commas. The sections of ``tables.md`` are tables with such words in braces.
"""

from __future__ import annotations

import re
import shlex
import statistics
from typing import Any

from docs_tables.text import load

SECTION = re.compile(r"^## (\w+)\n\n((?:\|.*\n)+)", re.MULTILINE)
SUMMARIES = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
}


def templates(text: str) -> dict[str, str]:
    """Return the tables of ``tables.md`` by name, with words in braces."""
    return dict(SECTION.findall(text))


def with_numbers(template: str) -> str:
    """Return a table with the recorded numbers.

    Raises:
        ValueError: words lead to no number.
    """
    return re.sub(r"\{([^}]+)\}", lambda m: number(m[1]), template)


def number(expression: str) -> str:
    """Return the number, formatted, to which words lead."""
    try:
        file, *steps, form = shlex.split(expression)
        value = load(file)
        for step in steps:
            value = after(value, step)
        return ", ".join(formatted(one, form) for one in (value if isinstance(value, list) else [value]))
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise ValueError(f"figure {expression!r}: {type(error).__name__}: {error}") from None


def formatted(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, str) else format(value, form).replace("-", "−")


def after(value: Any, step: str) -> Any:
    if step in SUMMARIES and not has_key(value, step):
        return SUMMARIES[step](value)
    if step[0] in "*/":
        factor = float(step[1:]) if step[0] == "*" else 1 / float(step[1:])
        return [one * factor for one in value] if isinstance(value, list) else value * factor
    if isinstance(value, dict):
        return list(value.values())[int(step)] if step.isdigit() and step not in value else value[step]
    key, equal, wanted = step.partition("=")
    if equal:
        rows = [row for row in value if in_words(row.get(key)) == wanted]
        if not rows:
            raise ValueError(f"no element has {step}")
        return rows
    return value[int(step)] if step.isdigit() else [row[step] for row in value]


def has_key(value: Any, key: str) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and key in first


def in_words(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
