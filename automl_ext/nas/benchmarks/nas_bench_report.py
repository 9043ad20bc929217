"""The report of ``nas-bench``: a table with the published results, and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from automl_ext.nas.estimators.benchmark_table import DATASETS
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import color_of
from automl_ext.training.pictures.curves import add_title, figure, set_axes
from automl_ext.training.pictures.titles import algorithm_name

# CIFAR-10 test accuracy in percent, mean and standard deviation: NATS-Bench (Dong et al., TPAMI 2021), topology space.
PUBLISHED = {
    "random": (93.86, 0.23),
    "reinforce": (93.90, 0.26),
    "rea": (94.02, 0.31),
    "bohb": (93.94, 0.28),
}
LEAST_REGRET = 0.01  # percentage points: smaller ones are drawn at this height, because the axis is logarithmic
SCREENED = "+screen"  # an algorithm with screening has the color of the algorithm, and a dashed line


def print_table(result: Mapping[str, Mapping[str, Any]], optimum: float, dataset: str = "cifar10") -> None:
    """Print the result of ``nas-bench`` next to the published results, which are for CIFAR-10."""
    published = PUBLISHED if dataset == "cifar10" else {}
    columns = ("strategy", "test accuracy", "published", "minus REA", "evaluated", "CPU s")
    words = "test accuracy in %, mean ± standard deviation of runs; minus REA: with 95 % interval; evaluated: cells"
    title = f"NAS-Bench-201, {DATASETS[dataset].name}: {words}"
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title=title)
    for name, row in result.items():
        std, over = row["std"], row.get("over_rea")
        table.add_row(
            name,
            f"{row['mean']:.2f}" if std is None else _accuracy(row["mean"], std),
            _accuracy(*published[name]) if name in published else "",
            "" if over is None else f"{over['mean']:+.3f} ± {over['ci95'][1] - over['mean']:.3f}",
            f"{row['evaluations']:.0f}",
            f"{row['cpu_seconds']:.3f}",
        )
    for name, numbers in published.items():
        if name not in result:
            table.add_row(name, "", _accuracy(*numbers))
    table.add_row("optimum", f"{optimum:.2f}", "94.37" if published else "")
    Console().print(table)


def _accuracy(mean: float, std: float) -> str:
    return f"{mean:.2f} ± {std:.2f}"


def draw(
    curves: Mapping[str, NDArray[np.float64]],
    budget: float,
    path: Path,
    optimum: float = 100.0,
    dataset: str = "cifar10",
) -> None:
    """Plot the regret against simulated seconds: mean over runs with a 95 % band, on a logarithmic axis.

    The regret is the test accuracy of the best cell of the table minus that of the best cell so far.

    Args:
        curves: test accuracy in percent of the best cell so far by algorithm, [runs, points]; NaN before the first
            evaluation.
        budget: simulated seconds of a run.
        optimum: highest test accuracy in the table, in percent.
        dataset: data set of the table, one of ``DATASETS``.
    """
    picture = figure(7.0, 4.6)
    axes = picture.add_subplot()
    low, high = 1.0, 1.0  # limits of the axis
    for name, values in curves.items():
        known = ~np.isnan(values).any(axis=0)  # every run has finished an evaluation
        seconds = (np.arange(values.shape[1])[known] + 1) * budget / values.shape[1]
        regret = (optimum - values[:, known]).clip(LEAST_REGRET)
        mean, half = regret.mean(axis=0), 1.96 * regret.std(axis=0) / len(values) ** 0.5
        strategy, style = name.removesuffix(SCREENED), "--" if name.endswith(SCREENED) else "-"
        text = algorithm_name(strategy) + (" with screening" if name.endswith(SCREENED) else "")
        color, label = color_of(strategy), f"{text}: {mean[-1]:.2f} at the end" if len(mean) else text
        axes.plot(seconds, mean, style, color=color, label=label, linewidth=1.8)
        band = (mean - half).clip(LEAST_REGRET), mean + half
        axes.fill_between(seconds, *band, color=color, alpha=0.25, linewidth=0)
        late = seconds > budget / 20  # the first cells are much worse and would stretch the axis
        low, high = min([low, *band[0][late]]), max([high, *mean[late]])
    axes.set_yscale("log")
    axes.set_ylim(0.9 * low, 1.1 * high)
    axes.set_xlim(0, budget)
    set_axes(axes, "simulated seconds of training", f"test accuracy below the best cell ({optimum:.2f} %), points")
    for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    runs = max(len(values) for values in curves.values())
    each = f"{runs} runs each" if runs > 1 else "one run each"
    shown = "mean over runs, 95 % band" if runs > 1 else None
    picture.legend(loc="outside lower center", ncols=3, title=shown, fontsize=8, title_fontsize=8)
    add_title(picture, f"Regret of search strategies on NAS-Bench-201, {DATASETS[dataset].name}, {each}")
    write_picture(picture, path, dpi=130)
