"""The result of a tuning run for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def table_of(result: dict[str, Any]) -> Table:
    """Return a table of the given and of the best settings.

    Args:
        result: the content of ``result.json``.
    """
    given, best = result["trials"][0]["point"], result["best"]["point"]
    table = Table("option", "given (trial 0)", f"best (trial {result['best']['trial']})")
    for name in best:
        table.add_row(name, formatted(given[name]), formatted(best[name]))
    first = result["first_value"]
    table.add_section()
    table.add_row(result["metric"], "failed" if first is None else f"{first:.6g}", f"{result['best']['value']:.6g}")
    return table


def formatted(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of the rows of the summary: the numbers of trials, and why some failed."""
    counts = ", ".join(f"{result[state]} {state}" for state in ("finished", "failed", "pruned") if result[state])
    errors = dict.fromkeys(trial["error"] for trial in result["trials"] if "error" in trial)
    return [("trials", counts), *(("failed", error) for error in list(errors)[:3])]
