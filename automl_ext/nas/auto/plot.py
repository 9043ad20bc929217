"""The picture of ``search auto``: accuracy against cost, with the baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.training.curves import figure
from automl_ext.training.files.atomic import write_picture

SEARCH, RANDOM, LARGEST = "#0072B2", "#D55E00", "#009E73"


def plot_auto(result: dict[str, Any], data: str, path: Path) -> None:
    """Plot the test accuracy of the best network so far against CPU-seconds, of the search and of random architectures.

    The largest architecture and the ensembles are points.

    Args:
        result: the content of the ``result.json`` of ``search auto``.
        data: the name of the data set, for the title.
        path: the PNG file to write.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is not installed.
    """
    picture = figure(7.0, 4.0)
    axes = picture.add_subplot()
    for name, color, label in (("search", SEARCH, "search: best so far"), ("random", RANDOM, "random: best so far")):
        points = result["trajectory"][name]
        if points:
            x, y = [p["seconds"] for p in points], [100 * p["test_accuracy"] for p in points]
            axes.step(x, y, where="post", color=color, marker="o", markersize=4, label=label)
    for row in result["rows"]:
        if row["name"] == "largest":
            axes.scatter([row["seconds"]], [100 * row["test_accuracy"]], color=LARGEST, marker="s", s=50, zorder=3, label="largest cell, no search")
        elif row["name"].startswith("ensemble"):
            color = RANDOM if "random" in row["name"] else SEARCH
            axes.scatter([row["seconds"]], [100 * row["test_accuracy"]], color=color, marker="*", s=140, zorder=3, label=row["name"])
    axes.set_xlabel("cost in CPU-seconds")
    axes.set_ylabel("test accuracy in %")
    axes.set_xlim(left=0)
    axes.set_title(f"search auto on {data}: {100 * result['test_accuracy']:.2f} %, {result['parameters']:,} parameters")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    write_picture(picture, path, dpi=120)
