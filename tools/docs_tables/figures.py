"""Measured numbers within sentences: ``<!-- figure: rl_dqn ratio .2f -->2.45<!-- end -->``.

The words name a file of benchmarks/results/, the steps that lead to a number in it, and a format. Steps are applied
from left to right, and quoted where they contain a space:

    key          the value of a key; of a list: the values of its elements
    3            an element of a list, or the value of an object's fourth key
    key=value    the elements of a list with this value; the sizes of a shape are joined by ``x``
    mean         of a list of numbers; also median, min, max, sum, count; a key of this name comes first
    *1e6, /60    a factor, a divisor

Several numbers are joined by commas. A marker must not begin a line, where Markdown takes the whole line as
HTML.
"""

from __future__ import annotations

import re
import shlex
import statistics
from typing import Any

from docs_tables.text import load

FIGURE = re.compile(r"(<!-- figure: ((?:(?!-->).)+) -->)((?:(?!<!--).)*)(<!-- end -->)")
SUMMARIES = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
}


def filled_figures(text: str) -> str:
    """Return the page with the recorded numbers.

    Raises:
        ValueError: a marker has no end, begins a line, or leads to no number.
    """
    found = FIGURE.findall(text)
    for line in text.splitlines():
        if line.count("<!-- figure:") != len(FIGURE.findall(line)):
            raise ValueError(f"expected <!-- figure: FILE STEP... FORMAT -->…<!-- end --> within a line, got {line!r}")
        if line.lstrip().startswith("<!-- figure:"):
            raise ValueError(f"a figure's marker begins the line {line!r}")
    numbers = {expression: number(expression) for _, expression, _, _ in found}
    return FIGURE.sub(lambda m: f"{m[1]}{numbers[m[2]]}{m[4]}", text)


def differences(text: str) -> list[str]:
    """Return a message for each figure that differs from its file."""
    return [
        f"figure {expression!r}: the file says {number(expression)}, the page {shown}"
        for _, expression, shown, _ in FIGURE.findall(text)
        if shown != number(expression)
    ]


def number(expression: str) -> str:
    """Return the number, formatted, to which the words of a marker lead."""
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
