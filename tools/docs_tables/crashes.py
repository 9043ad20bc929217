"""The table of the commands whose crashes were tested: docs/reliability.md."""

from __future__ import annotations

from docs_tables.text import integer, load, table

COLUMNS = ("operations", "states", "resumed", "started anew", "refused", "ended", "faults")
NAMES = "file operations | disks | continued | started anew | refused in one line | run to the end | faults | date"


def torture() -> str:
    rows = load("torture")["rows"]
    cells = [[f"`{row['command']}`", *(integer(row[name]) for name in COLUMNS), row["date"]] for row in rows]
    made = {f"{row['processor']}, torch {row['torch']}, Python {row['python']}, seed {row['seed']}" for row in rows}
    return f"{table(f'command | {NAMES}', cells)}\n`make torture` on {'; '.join(sorted(made))}.\n"
