"""Pictures of a fitted ensemble: leaderboard, calibration or predictions, importance, gains of features."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from automl_ext.tabular.candidates import BASELINES
from automl_ext.tabular.fitted import Fitted
from automl_ext.tabular.table.task import HIGHER_IS_BETTER, Array
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLUE, GRAY, PALETTE, RED
from automl_ext.training.pictures.curves import figure, plain

SHOWN = 15  # rows of a leaderboard or of features
BINS = 10  # of a calibration curve
CLASSES = 6  # curves of the most frequent classes
POINTS = 3000  # of a scatter plot
LONGEST = 32  # characters of a name


def draw_pictures(fitted: Fitted, folder: Path) -> dict[str, Path]:
    """Draw the pictures that apply. Return title → file; nothing without matplotlib (extra ``plot``)."""
    if find_spec("matplotlib") is None:
        return {}
    drawings = {
        "Leaderboard": (_leaderboard, "leaderboard.png"),
        "Importance of features": (_importance, "importance.png"),
    }
    if fitted.task.is_classification:
        drawings["Calibration"] = (_calibration, "calibration.png")
    else:
        drawings["Predicted against true"] = (_predicted, "predicted.png")
    if any(verdict["gain"] is not None for verdict in fitted.report["features"]):
        drawings["Gain of constructed features"] = (_gains, "features.png")
    written = {}
    for title, (draw, name) in drawings.items():
        picture = figure(6.4, 4.0)
        draw(fitted, picture.add_subplot())
        write_picture(picture, folder / name, dpi=120)
        written[title] = folder / name
    return written


def first_rows(board: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return the first rows of a leaderboard, and the best row of each kind of baseline."""
    best = [next((row for row in board if row["name"].startswith(kind)), None) for kind in BASELINES]
    return [row for i, row in enumerate(board) if i < most or row in best]


def _names(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [plain(n if len(n) <= LONGEST else n[: LONGEST - 1] + "…") for n in names])
    axes.invert_yaxis()


def _leaderboard(fitted: Fitted, axes: Any) -> None:
    metric = fitted.task.metric
    rows = first_rows(fitted.report["leaderboard"], SHOWN)
    for i, row in enumerate(rows):
        color = RED if i == 0 else BLUE if row["votes"] else GRAY
        axes.errorbar(row[metric], i, xerr=row["error"] or row["std"] or 0, fmt="o", color=color, capsize=2)
    _names(axes, [row["name"] for row in rows])
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    axes.set_xlabel(f"{metric.replace('_', ' ')} of rows not trained on ({better} is better)")
    error = ", bar: ± standard error" * any(row["error"] for row in rows)
    bars = ", bar: ± standard deviation over the folds" * any(row["std"] for row in rows)
    axes.set_title(f"red: ensemble{error}; blue: in the ensemble{bars}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)


def _importance(fitted: Fitted, axes: Any) -> None:
    found = list(fitted.importance().items())[:SHOWN]
    axes.barh(range(len(found)), [100 * value for _, value in found], color=BLUE)
    _names(axes, [name for name, _ in found])
    axes.set_xlabel("share of the models' gain, %")
    axes.grid(axis="x", alpha=0.3)


def _calibration(fitted: Fitted, axes: Any) -> None:
    y, predicted = fitted.evaluation["y"], fitted.evaluation["predicted"]
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--")
    classes = [1] if len(fitted.task.classes) == 2 else np.argsort(-np.bincount(y))[:CLASSES]
    for k, color in zip(classes, PALETTE, strict=False):
        mean, share = calibration_curve(predicted[:, k], y == k)
        axes.plot(mean, share, "o-", color=color, label=plain(str(fitted.task.classes[k])[:LONGEST]), markersize=4)
    axes.set_xlabel("predicted probability, mean of a bin of equally many rows")
    axes.set_ylabel("share of rows of the class")
    axes.legend(title="class", fontsize=8)
    axes.grid(alpha=0.3)


def calibration_curve(probability: Array, is_class: Array) -> tuple[list[float], list[float]]:
    """Return the mean probability and the share of the class in up to ``BINS`` bins of equally many rows."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return [float(probability[part].mean()) for part in parts], [float(is_class[part].mean()) for part in parts]


def _predicted(fitted: Fitted, axes: Any) -> None:
    y, predicted = fitted.evaluation["y"], fitted.evaluation["predicted"]
    some = np.random.default_rng(0).permutation(len(y))[:POINTS]
    axes.scatter(y[some], predicted[some], s=6, alpha=0.4, color=BLUE, linewidths=0)
    ends = [min(y.min(), predicted.min()), max(y.max(), predicted.max())]
    axes.plot(ends, ends, color=GRAY, linewidth=1, linestyle="--")
    axes.set_xlabel(plain(f"true {fitted.task.target}"[:60]))
    axes.set_ylabel("predicted, by models that did not see the row")
    axes.grid(alpha=0.3)


def _gains(fitted: Fitted, axes: Any) -> None:
    judged = [verdict for verdict in fitted.report["features"] if verdict["gain"] is not None]
    for i, verdict in enumerate(judged):
        color = BLUE if verdict["kept"] else GRAY
        axes.errorbar(verdict["gain"], i, xerr=verdict["error"], fmt="o", color=color, capsize=3)
    axes.axvline(0, color=GRAY, linewidth=1, linestyle="--")
    _names(axes, [verdict["family"] for verdict in judged])
    axes.set_ylim(len(judged) - 0.5, -0.5)
    axes.set_xlabel(f"decrease of {fitted.task.metric.replace('_', ' ')} ± corrected standard error")
    axes.set_title("blue: kept, the gain is above its error; gray: dropped", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
