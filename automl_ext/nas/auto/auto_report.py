"""The report of ``search auto``: the table for the terminal, and the picture of accuracy against cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import PALETTE
from automl_ext.training.pictures.curves import add_title, figure, plain

if TYPE_CHECKING:
    from rich.table import Table


def table_of(result: dict[str, Any], title: str) -> Table:
    """Return a table of the returned network and the baselines: accuracies, size, length and cost."""
    from rich.table import Table  # here, because pictures need no rich

    table = Table("accuracy in %", "test", "valid", "loss", "params", "epochs", "steps", "CPU-s", title=title)
    for row in result["rows"]:
        table.add_row(
            row["name"],
            f"{100 * row['test_accuracy']:.2f}",
            f"{100 * row['valid_accuracy']:.2f}",
            f"{row['valid_log_loss']:.3f}",
            f"{row['parameters']:,}",
            f"{row['epochs']:.1f}",
            f"{row['steps']:,}",
            f"{row['seconds']:.0f}",
        )
    caption = f"found: {result['network_name']}; loss: of the validation images, in nats"
    if any(row.get("valid_earlier") for row in result["rows"]):  # files of before do not have it
        caption += "; valid, loss: before the validation images trained the network, too"
    if not result.get("race_decided", True):
        caption += "; no network beat chance in the race: the one that fits the budget best went on"
    without = "" if result["baselines"] else "; no baselines were trained: --baselines trains three for as long each"
    table.caption = caption + without
    return table


def plot_auto(result: dict[str, Any], path: Path, title: str) -> list[Path]:
    """Plot the test accuracy over the cost, with one line for the search, the race included, and one per baseline.

    Returns:
        The file; none if the result is not that of ``search auto``.
    """
    if "trajectory" not in result:
        return []
    picture = figure(7.0, 4.2)
    axes = picture.add_subplot()
    for color, (name, points) in zip(PALETTE, result["trajectory"].items(), strict=False):
        x, y = [p["seconds"] for p in points], [100 * p["test_accuracy"] for p in points]
        label = f"search: {result.get('network_name', '')}" if name == "search" else name
        width = 2 if name == "search" else 1
        axes.plot(x, y, color=color, marker="o", markersize=4, linewidth=width, label=plain(label))
    axes.set_xlabel("cost in CPU-seconds")
    axes.set_ylabel("test accuracy in %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    picture.legend(loc="outside lower center", ncols=2, fontsize=8)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)
    return [path]
