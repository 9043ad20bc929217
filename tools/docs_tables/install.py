"""The tables of build and installation times: docs/install.md."""

from __future__ import annotations

from docs_tables.text import load, table


def install_times() -> str:
    recorded = load("first_hour")
    lines = [
        [f"`{name}`: {what}", f"{recorded[name]['seconds'] / 60:.1f}", recorded[name]["cpu_seconds"]]
        for name, what in (
            ("make", "environment, packages, build, demonstration"),
            ("make test", "compiles the C++ tests, runs all tests but the slow ones"),
        )
    ]
    for page, command, _, cpu_seconds in recorded["commands"]:
        if page == "install":  # the machine was not idle, so these minutes say nothing
            lines.append([f"`{command}`", "–", cpu_seconds])
    return table("in a fresh environment | minutes | CPU-seconds", [[*line[:2], f"{line[2]:.0f}"] for line in lines])


def install_matrix() -> str:
    rows = [
        [
            row["torch"],
            row["python"],
            row["gradients"].split(" for ")[0],
            f"{row['install']['cpu_seconds']:.1f}",
            f"{row['first_op']['cpu_seconds']:.1f}",
            row["tests"].split(",")[0],
        ]
        for row in load("install_matrix")["rows"]
    ]
    return table("torch | Python | gradients in | `pip install`, CPU-s | first op, CPU-s | tests", rows)
