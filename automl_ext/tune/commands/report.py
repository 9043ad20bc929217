"""The result of a tuning run for the terminal."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rich.table import Table


def table_of(result: dict[str, Any], space: dict[str, dict[str, Any]]) -> Table:
    """Return a table of the searched options: their ranges, the given and the best settings."""
    given, best = result["trials"][0]["point"], result["best"]["point"]
    table = Table("option", "searched", "given (trial 0)", f"best (trial {result['best']['trial']})")
    for name in best:
        table.add_row(name, searched(space[name]), formatted(given[name]), formatted(best[name]))
    first = value_of_first(result)
    table.add_section()
    table.add_row(result["metric"], "", "failed" if first is None else f"{first:.6g}", f"{result['best']['value']:.6g}")
    return table


def value_of_first(result: dict[str, Any]) -> float | None:
    """Return the value of trial 0 as it is compared with the best one: with other seeds, the mean over all seeds."""
    values: list[Any] = next((row["values"] for row in result.get("confirmed", ()) if row["trial"] == 0), [None])
    first: float | None = result["first_value"] if None in values else fmean(values)
    return first


def searched(values: dict[str, Any]) -> str:
    """Return the text of an option's range or categories."""
    if "values" in values:
        return ", ".join(map(formatted, values["values"]))
    return f"{formatted(values['low'])} to {formatted(values['high'])}{', log' if values['log'] else ''}"


def formatted(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of the rows of the summary: numbers of trials, why some failed, values of other seeds."""
    counts = ", ".join(f"{result[state]} {state}" for state in ("finished", "failed", "pruned") if result[state])
    errors = dict.fromkeys(trial["error"] for trial in result["trials"] if "error" in trial)
    again = "; ".join(
        f"trial {row['trial']}: " + ", ".join("failed" if v is None else f"{v:.6g}" for v in row["values"])
        for row in result.get("confirmed", ())
    )
    rows = [("trials", counts), *(("failed", error) for error in list(errors)[:3])]
    return [*rows, ("with other seeds", again)] if again else rows
