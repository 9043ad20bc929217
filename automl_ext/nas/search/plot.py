"""Plots of a search with a strategy: the scores over time, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl_ext.nas.search.history import pareto_front
from automl_ext.training.curves import figure
from automl_ext.training.files.atomic import write_picture

COLOR, FAINT = "#1b6ca8", "#b9c3cc"
COSTS = {
    "parameters": "parameters",
    "macs": "multiply-adds",
    "latency_ms": "latency in ms (one image, one thread)",
    "cost": "seconds of evaluation",
}


def plot_search(rows: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """Draw ``trajectory.png`` and ``pareto.png`` into the folder ``out``.

    Args:
        rows: the lines of the search's ``metrics.jsonl``.
        out: an existing folder.

    Returns:
        The files written; none if the rows are not those of a search with a strategy.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    rows = [row for row in rows if "best_score" in row and "score" in row and row.get("seconds") is not None]
    if not rows:
        return []
    draw_trajectory(rows, out / "trajectory.png")
    draw_pareto(rows, out / "pareto.png")
    return [out / "trajectory.png", out / "pareto.png"]


def draw_trajectory(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the scores and the best score so far against seconds of evaluation, and mark failed candidates."""
    picture = figure(6.4, 3.6)
    axes = picture.add_subplot()
    scored = [row for row in rows if row["score"] is not None]
    axes.scatter([row["seconds"] for row in scored], [row["score"] for row in scored], s=9, color=FAINT, label="score")
    best = [row for row in rows if row["best_score"] is not None]
    axes.step(
        [r["seconds"] for r in best], [r["best_score"] for r in best], where="post", color=COLOR, label="best so far"
    )
    failed = [row["seconds"] for row in rows if row["score"] is None]
    if failed:
        floor = min((row["score"] for row in scored), default=0.0)
        axes.scatter(failed, [floor] * len(failed), marker="x", s=20, color="#c8553d", label="failed")
    axes.set_xlabel("seconds of evaluation")
    axes.set_ylabel("score")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    write_picture(picture, path, dpi=120)


def draw_pareto(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot scores against each measured cost, one panel per cost, with the Pareto front.

    Only evaluations at the largest budget are shown.
    """
    budget = max(row.get("budget") or 0 for row in rows)
    rows = [row for row in rows if row["score"] is not None and (row.get("budget") or 0) == budget]
    costs = [name for name in COSTS if rows and all(row.get(name) is not None for row in rows)]
    picture = figure(4.6 * max(len(costs), 1), 3.6)
    for i, name in enumerate(costs):
        axes = picture.add_subplot(1, len(costs), i + 1)
        x, y = [row[name] for row in rows], [row["score"] for row in rows]
        front = pareto_front(x, y)
        axes.scatter(x, y, s=9, color=FAINT)
        axes.step([x[k] for k in front], [y[k] for k in front], where="post", color=COLOR)
        axes.scatter([x[k] for k in front], [y[k] for k in front], s=18, color=COLOR, label="Pareto front")
        if max(x) > 20 * min(x) and math.isfinite(max(x)) and min(x) > 0:
            axes.set_xscale("log")
        axes.set_xlabel(COSTS[name])
        axes.set_ylabel("score")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    write_picture(picture, path, dpi=120)
