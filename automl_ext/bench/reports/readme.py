"""The README's table, generated from a result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from automl_ext.bench.cases.case import FORWARD
from automl_ext.bench.reports.cells import duration, left_out, machine, percent, shape_of, times
from automl_ext.bench.speed_targets import TARGETS
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.reading import read_small

BEGIN, END = "<!-- bench: made by `automl-ext bench --table`, do not edit -->\n", "<!-- bench: end -->"
HEADER = ["op", "shape", "forward: ours", "the best other", "ratio", "of a copy's speed", "forward + backward: ratio"]
MOST_ELEMENTS = 10_000_000  # of the input, in the single row shown for an op without targets


def markdown(result: dict[str, Any]) -> str:
    """Format README's table as Markdown.

    It has the float32 rows with a performance target; for other ops, the largest row of at most ``MOST_ELEMENTS``
    elements; then the machine, and the contenders that failed or are missing, with the reasons.
    """
    lines = [HEADER, ["---"] * len(HEADER)]
    by_place: dict[tuple[str, tuple[int, ...]], dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        if row["dtype"] == "float32":
            by_place.setdefault((row["op"], tuple(row["shape"])), {})[row["pass"]] = row
    for place in shown(list(by_place)):
        passes = by_place[place]
        if FORWARD in passes:
            lines.append(table_line(passes[FORWARD], passes.get("forward + backward")))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    below = [
        f"{machine(result)}; medians of interleaved runs, at least {result['seconds_per_row']:g} s per row.",
        *(f"Not measured: {name}, {why}" for name, why in result["skipped"].items()),
        *(
            f"Failed: {name} for {', '.join(f'`{op}`' for op in ops)}: {why}"
            for name, why, ops in left_out(result, "failed")
        ),
    ]
    return table + "".join(f"\n{line}\n" for line in below)


def shown(places: list[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the places with a target, and the largest shape of every op."""
    asked = {(target.op, target.shape) for target in TARGETS}
    largest: dict[str, tuple[int, ...]] = {}
    for op, shape in places:
        if elements(op, largest.get(op, (0,))) < elements(op, shape) <= MOST_ELEMENTS:
            largest[op] = shape
    return [place for place in places if place in asked or largest.get(place[0]) == place[1]]


def elements(op: str, shape: tuple[int, ...]) -> int:
    """Return the number of elements of the input. (The shape of a network also contains the widths of its layers.)"""
    return math.prod(shape[:2] if op.startswith("mlp") else shape)


def table_line(forward: dict[str, Any], training: dict[str, Any] | None) -> list[str]:
    seconds, best = forward["seconds"], forward["best"]
    others = [f"{best} {duration(seconds[best]['median'])}"] if best else []
    others += [f"{name} failed" for name in forward["failed"]]
    return [
        f"`{forward['op']}`",
        shape_of(forward),
        duration(seconds["ours"]["median"]),
        "; ".join(others) or "–",
        times(forward["ratio"]),
        percent(forward["of_copy"]),
        f"{times(training['ratio'])} {training['best']}" if training and training["best"] else "–",
    ]


def replace_table(readme: Path, result: dict[str, Any]) -> None:
    """Write the result's table between the two markers.

    Raises:
        UserError: a marker is missing in the file.
    """
    text = read_small(readme).decode()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"--readme: {readme}: expected the lines {BEGIN.strip()!r} and {END!r}")
    write_atomic(readme, (before + BEGIN + "\n" + markdown(result) + "\n" + END + after).encode())
