"""Plots curves of the measurements that runs logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.metrics import FILE

COLORS = ("#1b6ca8", "#d1495b", "#66a182", "#8d6a9f")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's ``metrics.jsonl``. An incomplete last line, of a crash or a running run, is skipped.

    Raises:
        UserError: ``run`` is not a run directory, or its file is empty or damaged.
    """
    metrics = run / FILE
    if not metrics.is_file():
        raise UserError(f"plot: {run}: expected a run directory with {FILE}")
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
    """Escape ``text`` so that matplotlib shows it literally: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure; sizes in inches.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'drawing curves needs matplotlib: pip install "automl_ext[plot]"', name="matplotlib"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def draw_curves(rows: list[dict[str, Any]], path: Path, together: dict[str, dict[str, str]] | None = None) -> None:
    """Draw one panel per quantity, over steps.

    Args:
        rows: the rows of ``metrics.jsonl``.
        path: image file to write.
        together: quantities that share a panel: title → names → labels. Quantities not logged are left out.
    """
    logged = sorted({name for row in rows for name in row} - {"step"})
    shared = {
        title: {name: label for name, label in labels.items() if name in logged}
        for title, labels in (together or {}).items()
    }
    taken = {name for labels in shared.values() for name in labels}
    panels = {name: {name: name} for name in logged if name not in taken}
    panels |= {title: labels for title, labels in shared.items() if labels}
    if not panels:
        raise UserError(f"plot: {path.parent}: {FILE} holds steps and no measurements")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    picture = figure(4 * columns, 2.6 * lines)
    for i, (title, labels) in enumerate(panels.items()):
        axes = picture.add_subplot(lines, columns, i + 1)
        for (name, label), color in zip(labels.items(), COLORS, strict=False):
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            steps, values = [step for step, _ in points], [value for _, value in points]
            axes.plot(steps, values, color=color, label=plain(label), marker="o" if len(points) == 1 else None)
        if len(labels) > 1:
            axes.legend(fontsize=8)
        axes.set_title(plain(title), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
    write_picture(picture, path, dpi=120)
