"""The table of ``search auto`` for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

NAMES = {"found": "found by the search", "largest": "largest architecture", "ensemble": "ensemble of the search"}


def table_of(result: dict[str, Any], title: str) -> Table:
    """Return a table of networks and ensembles: accuracies, size and cost. The result is marked with a star.

    Args:
        result: the content of ``result.json``.
        title: the title of the table.
    """
    table = Table("accuracy in %", "test", "validation", "log-loss", "parameters", "CPU-s", title=title)
    for row in result["rows"]:
        star = " *" if row["name"] == result["source"] else ""
        table.add_row(
            NAMES.get(row["name"], row["name"]) + star,
            f"{100 * row['test_accuracy']:.2f}",
            f"{100 * row['valid_accuracy']:.2f}",
            f"{row['valid_log_loss']:.3f}",
            f"{row['parameters']:,}",
            f"{row['seconds']:.0f}",
        )
    table.caption = "log-loss of the validation images, in nats; * the lowest of a network: this is the result"
    return table
