"""Numbers as text, and rows as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks/results"


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def grouped(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, list[dict[str, Any]]]:
    """Return the rows by their keys, in the order in which these come first."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    names = header.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def ratio(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}×" if value >= 9.95 else f"{value:.1f}×"


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def integer(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


def span(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def returns(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}".replace("-", "−") for value in values)
