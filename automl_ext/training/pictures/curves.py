"""Draws the measurements that runs logged."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from automl_ext.training.errors import UserError, needs_extra
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.metrics import FILE
from automl_ext.training.pictures.colors import GRAY, PALETTE
from automl_ext.training.pictures.metric_names import (
    COUNTS,
    LEGEND_ALWAYS,
    SCHEDULES,
    in_unit,
    metric,
    order,
    order_of_lines,
)

WIDTH, HEIGHT = 3.9, 2.5  # of a panel, in inches, so that text is readable if the picture is 800 pixels wide
MANY_LINES = 8  # if a panel has more lines, they are gray and have no legend entries of their own


class Stage(NamedTuple):
    """A part of a run whose metrics have a common prefix, for example ``search_`` or ``cell3_``.

    Attributes:
        title: title of its panels.
        x: title of their x axis. Steps of a stage count from 1.
        label: for a stage that occurs several times: its number → the name of its line.
    """

    title: str
    x: str = "epoch"
    label: Callable[[int], str] | None = None


class Line(NamedTuple):
    """One curve of a panel."""

    label: str
    x: list[int]
    y: list[float]


class Panel(NamedTuple):
    """One pair of axes of a picture."""

    title: str
    x: str
    y: str
    lines: list[Line]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's ``metrics.jsonl``.

    An incomplete last line, which a crash or a running program may leave, is skipped.

    Raises:
        UserError: ``run`` is not a run directory, or its file is empty or damaged.
    """
    metrics = run / FILE
    if not metrics.is_file():
        several = f"; name one or several of {run}/seed-*" if (run / "seeds.json").is_file() else ""
        raise UserError(f"plot: {run}: expected a run directory with {FILE}{several}")
    rows = []
    lines = metrics.read_bytes().splitlines()
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if i < len(lines) - 1:
                raise UserError(f"plot: {metrics}: line {i + 1} is not valid JSON") from None
            continue
        if not isinstance(row, dict) or type(row.get("step")) is not int or not all(map(_is_number, row.values())):
            raise UserError(f"plot: {metrics}: line {i + 1}: expected an object of a step and numbers")
        rows.append(row)
    if not any(row.keys() - {"step"} for row in rows):
        raise UserError(f"plot: {run}: {FILE} is empty: nothing has been measured yet")
    return rows


def _is_number(value: Any) -> bool:
    """Return whether a curve can show ``value``: an int64, a finite float, or null."""
    if type(value) is int:
        return abs(value) < 2**63
    return value is None or (type(value) is float and math.isfinite(value))


def plain(text: str) -> str:
    """Return ``text`` as matplotlib shows it literally: a dollar sign is escaped, a lone surrogate replaced by "?"."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure; sizes in inches."""
    with needs_extra("drawing curves", "plot"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def draw_curves(
    rows: list[dict[str, Any]],
    path: Path,
    title: str = "",
    x: str = "step",
    stages: Mapping[str, Stage] | None = None,
    best: tuple[int, str] | None = None,
) -> None:
    """Draw one panel per quantity that changes. Schedules, such as the learning rate, are not drawn.

    Args:
        rows: the rows of ``metrics.jsonl``.
        path: image file to write.
        x: title of the x axis of metrics that belong to no stage.
        stages: prefix → stage; the prefix "" stands for metrics without one. None: steps are drawn as logged.
        best: a step to mark in the first panel, and its name in the legend.
    """
    panels = panels_of(rows, x, stages or {})
    if not panels:
        raise UserError(f"plot: {path.parent}: {FILE} holds steps and no measurements")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    picture = figure(*((1.6 * WIDTH, 1.4 * HEIGHT) if columns == 1 else (WIDTH * columns, HEIGHT * lines + 0.4)))
    for i, panel in enumerate(panels):
        axes = picture.add_subplot(lines, columns, i + 1)
        draw_panel(axes, panel, best if i == 0 else None)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)


def panels_of(rows: list[dict[str, Any]], x: str, stages: Mapping[str, Stage]) -> list[Panel]:
    """Return the panels of the metrics that change, the most important metrics first.

    If none changes, all are returned.
    """
    firsts: dict[str, int] = {}  # the first step of each stage, "cell0" and "cell1" counted separately
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name == "step" or value is None:
                continue
            firsts.setdefault(_stage_of(name, stages)[1], row["step"])
            series.setdefault(name, []).append((row["step"], value))
    places = list(stages)

    def place(name: str) -> tuple[int, int, int]:
        prefix, _, short = _stage_of(name, stages)
        return order(metric(short).axis), places.index(prefix) if prefix in places else -1, order_of_lines(short)

    panels: dict[tuple[str, str], Panel] = {}
    for name in sorted(series, key=place):
        prefix, occurrence, short = _stage_of(name, stages)
        if short in SCHEDULES:
            continue
        stage, shown = stages.get(prefix), metric(short)
        label = shown.label or shown.axis
        if stage is not None and stage.label is not None:
            label = stage.label(int(occurrence.removeprefix(prefix) or 0))
        before = firsts[occurrence] - 1 if stage else 0
        steps, values = zip(*series[name], strict=True)
        line = Line(label, [step - before for step in steps], in_unit(values, shown.scale))
        title, axis = (stage.title, stage.x) if stage else ("", x)
        panels.setdefault((prefix, shown.axis), Panel(title, axis, shown.axis, [])).lines.append(line)
    changing = [panel for panel in panels.values() if any(_changes(line.y) for line in panel.lines)]
    return changing or list(panels.values())


def _stage_of(name: str, stages: Mapping[str, Stage]) -> tuple[str, str, str]:
    """Split the name of a metric into its stage, its stage with the number, and the rest."""
    for prefix in filter(None, stages):
        if found := re.fullmatch(rf"({re.escape(prefix)}[0-9]{{0,9}})_(.+)", name):
            return prefix, found[1], found[2]
    return "", "", name


def _changes(values: Sequence[float]) -> bool:
    """Return whether a curve is worth drawing: its values differ, or it has only one value so far."""
    return len(values) < 2 or any(value != values[0] for value in values)


def draw_panel(axes: Any, panel: Panel, best: tuple[int, str] | None = None) -> None:
    """Draw lines with a legend. Lines of the same name have the same color and one entry in the legend.

    Args:
        best: as in :func:`draw_curves`; the mark is on the first line.
    """
    labels = list(dict.fromkeys(line.label for line in panel.lines))
    many = len(labels) > MANY_LINES
    named = {"_"} if not many else {"_", *labels}  # names that are in the legend, or that must not be
    for line in panel.lines:
        thin = many or sum(other.label == line.label for other in panel.lines) > 1
        # Candidates are independent of each other, so no line connects them.
        dots = panel.x == "evaluation" and line.label != "best so far"
        axes.plot(
            line.x,
            line.y,
            color=GRAY if thin else PALETTE[labels.index(line.label) % len(PALETTE)],
            linewidth=1.0 if thin else 1.8,
            zorder=2 if thin else 3,
            label="_" if line.label in named else plain(line.label),
            linestyle="" if dots else "-",
            drawstyle="steps-post" if line.label == "best so far" else "default",
            marker="o" if dots or len(line.x) == 1 else None,
            markersize=4 if dots else None,
        )
        named.add(line.label)
    if best is not None and (y := dict(zip(panel.lines[0].x, panel.lines[0].y, strict=True)).get(best[0])) is not None:
        mark_best(axes, best[0], y, PALETTE[0], best[1])
    if not many and (len(panel.lines) > 1 or best is not None or panel.y in LEGEND_ALWAYS):
        axes.legend(fontsize=8)
    axes.set_title(plain(panel.title), fontsize=9, loc="left")
    set_axes(axes, panel.x, panel.y)


def mark_best(axes: Any, x: float, y: float, color: str, label: str) -> None:
    """Mark a point with a star."""
    axes.plot(
        [x], [y], "*", color=color, markersize=13, markeredgecolor="white", label=plain(label), zorder=5, clip_on=False
    )


def set_axes(axes: Any, x: str, y: str) -> None:
    """Set the titles of the axes. An axis in percent ends at 100. An axis of epochs has integer ticks only,
    and the numbers of large counts end with k or M.
    """
    from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

    axes.set_xlabel(plain(x), fontsize=9)
    axes.set_ylabel(plain(y), fontsize=9)
    axes.tick_params(labelsize=8)
    if isinstance(axes.yaxis.get_major_formatter(), ScalarFormatter):
        axes.yaxis.get_major_formatter().set_useOffset(False)  # an offset would be written over the title
    if x in ("epoch", "evaluation", "decision"):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left, right = axes.get_xlim()
        if right - left < 1:  # there is only one point
            middle = round((left + right) / 2)
            axes.set_xticks([middle])
            axes.set_xlim(middle - 0.5, middle + 0.5)
    elif "steps" in x or x in COUNTS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if y in COUNTS:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    if y.endswith("%"):
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, 100.0))
    axes.grid(alpha=0.3)


def add_title(picture: Any, title: str, fontsize: float = 10.5) -> None:
    """Add the title of a picture, in as many lines as its width needs."""
    if title:
        letters = int(picture.get_size_inches()[0] * 125 / fontsize)
        picture.suptitle(plain(textwrap.fill(title, letters)), fontsize=fontsize)
