"""The table of the seconds per step with one and with several processes: docs/how-to/torchrun.md."""

from __future__ import annotations

from docs_tables.text import load, ratio, table


def torchrun_steps() -> str:
    rows = [
        [case, f"{one:.1f}" if one >= 1 else f"{one:.2f}", f"{two:.1f}" if two >= 1 else f"{two:.2f}", ratio(one / two)]
        for case, one, two in load("torchrun")["rows"]
    ]
    return table("case | 1 process, ms per step | 2 processes, ms per step | gain", rows)
