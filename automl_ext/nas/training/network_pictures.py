"""Pictures of trained networks: test accuracy against size, and the confusion matrix; and the titles of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.reading import short
from automl_ext.training.pictures.colors import BLUE, GRAY, GREEN, ORANGE, PURPLE
from automl_ext.training.pictures.curves import add_title, figure, plain, set_axes
from automl_ext.training.pictures.metric_names import PARAMETERS
from automl_ext.training.pictures.titles import algorithm_name, count, data_name, is_number, percent

NUMBERED = 20  # largest number of classes for which each cell of the confusion matrix shows its number
NAMED = 60  # largest number of classes for which the axes of the confusion matrix show names
Point = tuple[float, float]  # parameters, test accuracy (0 to 1)


def run_title(algorithm: str | None, config: dict[str, Any], result: dict[str, Any]) -> str:
    """Return the title of a run's pictures, such as "GDAS on digits: 97.8 % test accuracy, 0.3 M parameters"."""
    if algorithm == "tune":
        return f"Tuning of {config.get('about', {}).get('command', 'a function')}"
    if config.get("evaluator") == "table" or algorithm == "nas-bench":
        data = f"the table of NAS-Bench-201 ({data_name(Path(str(config.get('table') or 'cifar10')).name)})"
    else:
        data = data_name(config.get("data", "unknown data"))
    name = algorithm_name(algorithm)
    facts = []
    if is_number(result.get("test_accuracy")):
        facts.append(f"{percent(result['test_accuracy'])} test accuracy")
    elif is_number(result.get("score")):
        facts.append(f"{percent(result['score'])} validation accuracy")
    if is_number(result.get("parameters")):
        facts.append(f"{count(result['parameters'])} parameters")
    if is_number(result.get("evaluations")):
        facts.append(f"{result['evaluations']} evaluations")
    found, median = result.get("found"), result.get("random_median")
    if isinstance(found, dict) and is_number(found.get("test_accuracy")):
        facts.append(f"given cell {percent(found['test_accuracy'])} test accuracy")
    if is_number(median) and isinstance(result.get("random"), list):
        facts.append(f"median of {len(result['random'])} random cells {percent(median)}")
    greedy = result.get("greedy")
    if isinstance(greedy, dict) and is_number(greedy.get("test_accuracy")):
        facts.append(f"{percent(greedy['test_accuracy'])} test accuracy")
    if not result:
        facts.append("not finished")
    text = f"{name} on {data}" + (f": {', '.join(facts)}" if facts else "")
    return text[0].upper() + text[1:] if algorithm != "entmax-gdas" else text


def draw_comparison(result: dict[str, Any], out: Path, title: str = "") -> list[Path]:
    """Draw ``comparison.png`` into ``out``, from the result of :func:`compare` or of an ensemble.

    Returns:
        The files written; none for another result.
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
        x = [number + i if of_one_size else size for i, (size, _) in enumerate(points)]
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
    set_axes(axes, "network" if of_one_size else PARAMETERS, "test accuracy, %")
    if of_one_size:
        axes.set_xticks(range(1, number))
    axes.legend(fontsize=8)
    add_title(picture, title)
    write_picture(picture, path, dpi=120)


def plot_confusion(result: dict[str, Any], out: Path) -> list[Path]:
    """Draw the confusion matrix of a run's result as ``out/confusion.png``. Return the files written.

    The color of a cell is the share of its row, the true class. The accuracy of each class is written at the right.

    Args:
        result: content of ``result.json``; without the key ``confusion`` nothing is drawn.

    Raises:
        UserError: the entry ``confusion`` or ``class_accuracy`` is damaged.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    if "confusion" not in result:
        return []
    counts, names = check_confusion(result)
    size = len(names)
    side = min(max(3.2, 1.2 + (0.42 if size <= NUMBERED else 0.16) * size), 12.0)
    picture = figure(side + 1.6, side + 0.5)
    axes = picture.add_subplot()
    sums = [max(sum(row), 1) for row in counts]
    shares = [[count / total for count in row] for row, total in zip(counts, sums, strict=True)]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= NUMBERED:
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count:
                    color = "white" if shares[i][j] > 0.5 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", color=color, fontsize=8)
    if size <= NAMED:
        labels = [plain(name if len(name) <= 16 else name[:15] + "…") for name in names]
        tilted = size * max(map(len, labels)) > 32  # they would overlap
        axes.set_xticks(range(size), labels, rotation=90 if tilted else 0, fontsize=8)
        axes.set_yticks(range(size), labels, fontsize=8)
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(size), [f"{100 * row[i]:.0f} %" for i, row in enumerate(shares)], fontsize=8)
        right.tick_params(length=0)
        right.set_ylabel("accuracy of the class", fontsize=9)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    total = sum(map(sum, counts))
    correct = sum(row[i] for i, row in enumerate(counts))
    title = f"{total} test images: {100 * correct / max(total, 1):.1f} % correct"
    majority = result.get("majority_accuracy")
    if isinstance(majority, (int, float)):
        title += f"\nalways the most frequent class: {100 * majority:.1f} %"
    axes.set_title(title, fontsize=10)
    write_picture(picture, out / "confusion.png", dpi=120)
    return [out / "confusion.png"]


def check_confusion(result: dict[str, Any]) -> tuple[list[list[int]], list[str]]:
    """Return the confusion matrix and the names of the classes; ``result`` is not trusted.

    Raises:
        UserError: it is not a square matrix of counts, or the names do not fit.
    """
    counts, classes = result["confusion"], result.get("class_accuracy")
    names = list(classes) if isinstance(classes, dict) else []
    square = isinstance(counts, list) and all(isinstance(row, list) and len(row) == len(counts) for row in counts)
    if not square or not counts or not all(type(n) is int and 0 <= n < 2**53 for row in counts for n in row):
        raise UserError(f"plot: result.json: confusion: expected a square matrix of counts, got {short(counts)}")
    if len(names) != len(counts):
        raise UserError(f"plot: result.json: class_accuracy: expected {len(counts)} classes, got {short(classes)}")
    return counts, names
