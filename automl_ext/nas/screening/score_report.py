"""The report of ``automl-ext score``: tables for the terminal, and a plot against true accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automl_ext.nas.estimators.training_free.correlations import kendall, spearman
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLUE, GRAY
from automl_ext.training.pictures.curves import figure


def print_scores(result: Mapping[str, Any]) -> None:
    """Print the content of the ``result.json`` of ``automl-ext score``: the best architectures, and correlations."""
    from rich.console import Console  # here, because `import automl_ext.nas` must not load rich
    from rich.table import Table

    console = Console()
    best = result["best"]
    combined = " + ".join(result["rank_of"])
    shown = Table(title=f"best {len(best)} of {result['architectures']} by the sum of log-ranks of {combined}")
    known = "test_accuracy" in best[0]
    for name in ["#", "architecture", "log-ranks", "parameters", *(["accuracy, %"] if known else [])]:
        shown.add_column(name, justify="left" if name == "architecture" else "right", overflow="fold")
    for i, row in enumerate(best, start=1):
        cells = [str(i), row["genotype"], _number(row["rank"]), _number(row["parameters"])]
        shown.add_row(*cells, *([f"{row['test_accuracy']:.2f}"] if known else []))
    console.print(shown, markup=False)
    if "correlations" in result:
        title = f"rank correlation with the test accuracy, {result['architectures']} architectures"
        found = Table("score", "Spearman ρ", "Kendall τ", title=title)
        rest = [name for name in result["correlations"] if name not in ("rank", "parameters")]
        for name in ["rank", "parameters", *rest]:
            row = result["correlations"][name]
            found.add_row(
                "combined rank" if name == "rank" else name, _number(row["spearman"]), _number(row["kendall"])
            )
        console.print(found)
        pick = result["pick_accuracy"]
        console.print(f"best by rank: {pick['rank']:.2f} %, by parameters alone: {pick['parameters']:.2f} %")
    times = result["times"]
    console.print(f"{times['seconds_per_network']:.2f} s per network, {result['networks']} networks")


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):  # JSON has no infinities: None is a score that is not defined
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def draw_scatter(table: ScoreTable, accuracies: Sequence[float], path: Path) -> None:
    """Plot true accuracies against the position in the ranking, and against the number of parameters, side by side."""
    rank = table.rank()
    order = np.argsort(np.argsort(-rank, kind="stable"), kind="stable") + 1
    panels = [
        ("place by training-free rank (1: best)", order, rank, BLUE),
        ("parameters", table.scores["parameters"], table.scores["parameters"], GRAY),
    ]
    picture = figure(9.0, 3.8)
    truth = np.asarray(accuracies)
    for i, (label, x, score, color) in enumerate(panels):
        axes = picture.add_subplot(1, 2, i + 1)
        size = 16 if len(truth) <= 1000 else 3
        axes.scatter(x, truth, s=size, color=color, alpha=0.5, linewidths=0, rasterized=True)
        pick = int(np.argmax(score))
        axes.scatter(
            x[pick], truth[pick], s=60, facecolors="none", edgecolors="black", label=f"best: {truth[pick]:.2f} %"
        )
        axes.set_title(f"Spearman ρ {spearman(score, truth):.3f}, Kendall τ {kendall(score, truth):.3f}", fontsize=10)
        axes.set_ylim(max(0.0, float(np.percentile(truth, 5)) - 5), min(100.0, float(truth.max()) + 1))
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right" if i else "lower left")
    picture.axes[0].invert_xaxis()
    picture.axes[1].set_xscale("log")
    write_picture(picture, path, dpi=130)
