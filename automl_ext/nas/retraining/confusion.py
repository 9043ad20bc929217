"""The picture of a confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.reading import short
from automl_ext.training.pictures.curves import figure, plain

NUMBERED = 20  # largest number of classes for which each cell shows its number
NAMED = 60  # largest number of classes for which the axes show names


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
        UserError: it is no square matrix of counts, or the names do not fit.
    """
    counts, classes = result["confusion"], result.get("class_accuracy")
    names = list(classes) if isinstance(classes, dict) else []
    square = isinstance(counts, list) and all(isinstance(row, list) and len(row) == len(counts) for row in counts)
    if not square or not counts or not all(type(n) is int and 0 <= n < 2**53 for row in counts for n in row):
        raise UserError(f"plot: result.json: confusion: expected a square matrix of counts, got {short(counts)}")
    if len(names) != len(counts):
        raise UserError(f"plot: result.json: class_accuracy: expected {len(counts)} classes, got {short(classes)}")
    return counts, names
