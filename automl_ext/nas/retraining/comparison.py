"""A plot of networks that were trained in the same way: their test accuracy against their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLUE, GRAY, GREEN, ORANGE, PURPLE
from automl_ext.training.pictures.curves import add_title, figure, plain, set_axes
from automl_ext.training.pictures.titles import is_number, percent

Point = tuple[float, float]  # parameters, test accuracy (0 to 1)


def draw_comparison(result: dict[str, Any], out: Path, title: str = "") -> list[Path]:
    """Draw ``comparison.png`` into ``out``, from the result of :func:`compare` or of an ensemble.

    Returns:
        The files written; none for another result.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    groups: dict[str, list[Point]] = {}
    lines: dict[str, float] = {}
    if found := _points([result.get("found")]):
        groups["given cell"] = found
    if drawn := _points(result.get("random")):
        groups["random cells"] = drawn
        if is_number(result.get("random_median")):
            lines["median of the random cells"] = result["random_median"]
    if members := _points(result.get("members")):
        groups["members"] = members
        names = {
            "greedy": "ensemble, greedy selection",
            "average": "ensemble of all members",
            "best_single": "best member in validation",
        }
        for key, name in names.items():
            if isinstance(result.get(key), dict) and is_number(result[key].get("test_accuracy")):
                lines[name] = result[key]["test_accuracy"]
    if not groups:
        return []
    draw_groups(groups, lines, title, out / "comparison.png")
    return [out / "comparison.png"]


def _points(results: Any) -> list[Point]:
    """Return the points of results that have both numbers."""
    return [
        (r["parameters"], r["test_accuracy"])
        for r in (results if isinstance(results, list) else [])
        if isinstance(r, dict) and is_number(r.get("parameters")) and is_number(r.get("test_accuracy"))
    ]


def draw_groups(groups: Mapping[str, Sequence[Point]], lines: Mapping[str, float], title: str, path: Path) -> None:
    """Draw points, and horizontal lines for accuracies such as a median.

    The x axis is the number of parameters; if all networks have the same number, it is the index of the network. A
    group of one network is drawn as a star.

    Args:
        groups: legend entry → points. The first group is drawn on top.
        lines: legend entry → accuracy, 0 to 1.
    """
    picture = figure(6.6, 4.0)
    axes = picture.add_subplot()
    of_one_size = len({size for points in groups.values() for size, _ in points}) == 1
    number = 1
    several = iter((GRAY, GREEN))
    for k, (name, points) in enumerate(groups.items()):
        x = [number + i if of_one_size else size / 1e6 for i, (size, _) in enumerate(points)]
        number += len(points)
        star = len(points) == 1
        axes.scatter(
            x,
            [100 * accuracy for _, accuracy in points],
            marker="*" if star else "o",
            s=220 if star else 40,
            color=BLUE if star else next(several, GREEN),
            edgecolor="white",
            zorder=5 - k,
            label=plain(f"{name}: {percent(points[0][1])}" if star else f"{name} ({len(points)})"),
        )
    for (name, accuracy), color, style in zip(lines.items(), (ORANGE, GREEN, PURPLE), ("--", ":", "-."), strict=False):
        axes.axhline(100 * accuracy, color=color, linestyle=style, label=plain(f"{name}: {percent(accuracy)}"))
    set_axes(axes, "network" if of_one_size else "parameters, millions", "test accuracy, %")
    if of_one_size:
        axes.set_xticks(range(1, number))
    axes.legend(fontsize=8)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)
