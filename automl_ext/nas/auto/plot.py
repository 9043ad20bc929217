"""The picture of ``search auto``: accuracy against cost, with the baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLUE, GRAY, GREEN
from automl_ext.training.pictures.curves import add_title, figure

COLORS = {"search": BLUE, "random": GRAY}
NAMES = {"ensemble": "ensemble of the search"}


def plot_auto(result: dict[str, Any], path: Path, title: str) -> list[Path]:
    """Plot the test accuracy of the best network so far against the cost.

    There is a line for the search, and one for random architectures, trained in the same way. The largest architecture
    and the ensembles are points.

    Args:
        result: the content of a ``result.json``.
        path: the PNG file to write.
        title: its title.

    Returns:
        The file; none if the result is not that of ``search auto``.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is not installed.
    """
    if "trajectory" not in result:
        return []
    picture = figure(7.0, 4.2)
    axes = picture.add_subplot()
    for name, points in result["trajectory"].items():
        x, y = [p["seconds"] for p in points], [100 * p["test_accuracy"] for p in points]
        axes.step(x, y, where="post", color=COLORS[name], marker="o", markersize=4, label=f"{name}: best so far")
    for row in result["rows"]:
        at = [row["seconds"]], [100 * row["test_accuracy"]]
        if row["name"] == "largest":
            axes.scatter(*at, color=GREEN, marker="s", s=50, zorder=3, label="largest architecture, no search")
        elif "members" in row:
            color = COLORS["random" if "random" in row["name"] else "search"]
            axes.scatter(*at, color=color, marker="*", s=160, zorder=3, label=NAMES.get(row["name"], row["name"]))
    axes.set_xlabel("cost in CPU-seconds")
    axes.set_ylabel("test accuracy in %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    picture.legend(loc="outside lower center", ncols=3, fontsize=8)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)
    return [path]
