"""The table of the time per step with one and with two processes: docs/how-to/torchrun.md."""

from __future__ import annotations

from docs_tables.text import load, ratio, table


def torchrun_steps() -> str:
    found = load("torchrun")
    rows = [[case, *(f"{ms:.0f}" for ms in times), ratio(times[0] / times[-1])] for case, *times in found["rows"]]
    case, *columns = found["columns"]
    return table(" | ".join([case, *(f"{column}, ms" for column in columns), "gain of 2 processes"]), rows)
