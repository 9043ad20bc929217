"""Plots of a search with a strategy: the scores over time, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl_ext.nas.search.history import pareto_front
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.reading import read_object
from automl_ext.training.pictures.colors import BLUE, GRAY, GREEN, RED
from automl_ext.training.pictures.curves import add_title, figure, mark_best, set_axes
from automl_ext.training.pictures.metric_names import VALID_ACCURACY, in_unit, metric

COSTS = ("parameters", "macs", "latency_ms", "cost")


def plot_search(rows: Sequence[dict[str, Any]], out: Path, title: str = "") -> list[Path]:
    """Draw ``trajectory.png`` and ``pareto.png`` into the folder ``out``.

    The best architecture is marked if the search has finished. With limits on the costs, it is the best one within
    them.

    Returns:
        The paths of the files written. An empty list if no row has a score and a best score, as in a supernet search.

    Raises:
        UserError: ``result.json`` cannot be read.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    timed = [row for row in rows if row.get("seconds") is not None]
    rows = [row for row in timed if "best_score" in row and "score" in row]
    if not rows:
        return []
    finals = [row for row in timed if row.get("final_score") is not None]
    best = row_of(read_object(out / "result.json"), rows) if (out / "result.json").is_file() else None
    draw_trajectory(rows, out / "trajectory.png", title, best, finals)
    draw_pareto(rows, out / "pareto.png", title, best)
    return [out / "trajectory.png", out / "pareto.png"]


def row_of(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first row, at the largest budget, with the score and the costs of the result; None: there is none.

    After final trainings, the score of the result differs from the score of the architecture in the search.
    """
    facts = {name: result[name] for name in ("score", *COSTS) if name in result}
    finalists = result.get("finalists")
    for one in finalists if isinstance(finalists, list) else []:
        if isinstance(one, dict) and one.get("genotype") == result.get("genotype") and "search_score" in one:
            facts["score"] = one["search_score"]
    equal = [row for row in rows if row["score"] is not None and all(row.get(k) == v for k, v in facts.items())]
    return max(equal, key=lambda row: row.get("budget") or 0, default=None) if "score" in facts else None


def draw_trajectory(
    rows: Sequence[dict[str, Any]],
    path: Path,
    title: str = "",
    best: dict[str, Any] | None = None,
    finals: Sequence[dict[str, Any]] = (),
) -> None:
    """Plot the scores and the best score so far against seconds of evaluation, and mark failed candidates.

    ``best`` is the row of the best architecture, which is marked with a star. ``finals`` are the rows of the final
    trainings; the star is then at the best of them.
    """
    picture = figure(6.6, 3.8)
    axes = picture.add_subplot()
    scored = [row for row in rows if row["score"] is not None]
    scores = in_unit([row["score"] for row in scored], None)
    axes.scatter([row["seconds"] for row in scored], scores, s=14, color=GRAY, label="candidate", zorder=2)
    known = [row for row in rows if row["best_score"] is not None]
    best_scores = in_unit([row["best_score"] for row in known], None)
    axes.step([row["seconds"] for row in known], best_scores, where="post", color=BLUE, label="best so far", zorder=3)
    if finals:
        final_scores = in_unit([row["final_score"] for row in finals], None)
        seconds = [row["seconds"] for row in finals]
        axes.scatter(seconds, final_scores, marker="D", s=20, color=GREEN, label="finalist, trained again", zorder=3)
    if best is not None:
        of_best = (best["seconds"], scores[scored.index(best)])
        if finals:
            of_best = max(zip(seconds, final_scores, strict=True), key=lambda point: point[1])
        mark_best(axes, *of_best, BLUE, "best architecture")
    failed = [row["seconds"] for row in rows if row["score"] is None]
    if failed:
        floor = min(scores, default=0.0)
        axes.scatter(failed, [floor] * len(failed), marker="x", s=24, color=RED, label="failed", zorder=4)
    set_axes(axes, "seconds of evaluation", VALID_ACCURACY)
    axes.legend(fontsize=8)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)


def draw_pareto(
    rows: Sequence[dict[str, Any]], path: Path, title: str = "", best: dict[str, Any] | None = None
) -> None:
    """Plot scores against each measured cost, one panel per cost, with the Pareto front and the best architecture.

    Only evaluations at the budget of the best architecture are shown; if there is none, those at the largest budget.
    """
    budget = max(row.get("budget") or 0 for row in ([best] if best is not None else rows))
    rows = [row for row in rows if row["score"] is not None and (row.get("budget") or 0) == budget]
    costs = [name for name in COSTS if rows and all(row.get(name) is not None for row in rows)]
    columns = min(max(len(costs), 1), 2)
    lines = -(-len(costs) // columns) or 1
    picture = figure(max(4.2 * columns, 6.0), 3.4 * lines + 0.4)
    y = in_unit([row["score"] for row in rows], None)
    for i, name in enumerate(costs):
        axes = picture.add_subplot(lines, columns, i + 1)
        x = in_unit([row[name] for row in rows], metric(name).scale)
        front = pareto_front(x, y)
        axes.scatter(x, y, s=14, color=GRAY, label="candidate")
        axes.step([x[k] for k in front], [y[k] for k in front], where="post", color=BLUE)
        axes.scatter([x[k] for k in front], [y[k] for k in front], s=26, color=BLUE, label="Pareto front", zorder=3)
        if best is not None:
            mark_best(axes, x[rows.index(best)], y[rows.index(best)], BLUE, "best architecture")
        if max(x) > 20 * min(x) and math.isfinite(max(x)) and min(x) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter("")  # numbers between the powers of ten would overlap
        set_axes(axes, metric(name).axis, VALID_ACCURACY)
        axes.legend(fontsize=8)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)
