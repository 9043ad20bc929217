"""Printing of a result on the terminal, as tables if rich is installed and as plain lines otherwise."""

from __future__ import annotations

from typing import Any

from automl_ext.bench.reports.cells import HEADER, bandwidth, cells, left_out, machine, shape_of, times

WIDTHS = (23, 22, 9, 10, 16, 16, 22, 28, 8, 15, 10, 12)
SCALING = {
    "two_threads": "two threads",
    "memory_allows": "memory allows",
    "float64": "float64 / float32",
    "bfloat16": "bfloat16 / float32",
}


def plain_line(values: list[str]) -> str:
    return " ".join(f"{value:<{width}}" for value, width in zip(values, WIDTHS, strict=False)).rstrip()


def show(result: dict[str, Any]) -> None:
    """Print both tables, the skipped contenders with the reasons, wrong results, and the machine."""
    rows, header = [cells(row) for row in result["rows"]], HEADER
    if result["device_type"] == "cuda":
        rows, header = [[*cells(row), bandwidth(row)] for row in result["rows"]], [*HEADER, "GB/s"]
    show_table(
        "medians ± half the interquartile range; ratio: time of the fastest correct contender over ours", header, rows
    )
    rows = [
        [row["op"], shape_of(row), row["pass"], *(times(row.get(name)) for name in SCALING)]
        for row in result["scaling"]
    ]
    header = ["op", "shape", "pass", *SCALING.values()]
    show_table("our ops: speedup with two threads, and time per element", header, rows)
    for line in notes(result):
        print(line)


def show_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    if not rows:
        return
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        print(title)
        print("\n".join(plain_line(values) for values in (header, *rows)))
        return
    table = Table(*header, title=title)
    for values in rows:
        table.add_row(*values)
    console = Console()
    console = console if console.width >= 180 or console.is_terminal else Console(width=180)
    console.print(table)


def notes(result: dict[str, Any]) -> list[str]:
    lines = [f"{name}: skipped, {why}" for name, why in result["skipped"].items()]
    for row in result["rows"]:
        for name in row["wrong"]:
            error = row["errors"][name]
            lines.append(f"WRONG: {name}, {row['op']} {shape_of(row)} {row['dtype']} {row['pass']}: error {error:.1e}")
    for key in ("skipped", "failed"):
        lines += [f"{name}: {key} for {', '.join(ops)}: {why}" for name, why, ops in left_out(result, key)]
    return [*lines, result["allocator"], machine(result)]
