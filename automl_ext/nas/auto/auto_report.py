"""The report of ``search auto``: the table for the terminal, and the picture of accuracy against cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLUE, GRAY, GREEN
from automl_ext.training.pictures.curves import add_title, figure

if TYPE_CHECKING:
    from rich.table import Table

COLORS = {"search": BLUE, "random": GRAY}
NAMES = {"found": "found by the search", "largest": "largest architecture", "ensemble": "ensemble of the search"}


def table_of(result: dict[str, Any], title: str) -> Table:
    """Return a table of networks and ensembles: accuracies, size and cost. The result is marked with a star.

    Args:
        result: the content of ``result.json``.
        title: the title of the table.
    """
    from rich.table import Table  # here, because pictures need no rich

    table = Table("accuracy in %", "test", "validation", "log-loss", "parameters", "CPU-s", title=title)
    for row in result["rows"]:
        star = " *" if row["name"] == result["source"] else ""
        table.add_row(
            NAMES.get(row["name"], row["name"]) + star,
            f"{100 * row['test_accuracy']:.2f}",
            f"{100 * row['valid_accuracy']:.2f}",
            f"{row['valid_log_loss']:.3f}",
            f"{row['parameters']:,}",
            f"{row['seconds']:.0f}",
        )
    table.caption = "log-loss of the validation images, in nats; * the lowest of a network: this is the result"
    return table


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
