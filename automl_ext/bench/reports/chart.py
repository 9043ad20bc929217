"""The chart of a result: times of the other contenders, relative to ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.bench.reports.cells import machine, shape_of
from automl_ext.training.files.atomic import write_picture

STYLES = {"eager": ("o", "tab:gray"), "compiled": ("s", "tab:orange"), "entmax": ("D", "tab:green")}
OTHERS = [("^", "tab:red"), ("v", "tab:purple"), ("<", "tab:brown")]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw one line per float32 row on a logarithmic axis: a mark per correct contender, at its time relative to ours.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('the chart needs matplotlib: pip install "automl_ext[plot]"') from error
    rows = [row for row in result["rows"] if row["dtype"] == "float32"]
    figure = Figure(figsize=(9, 1.5 + 0.17 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = dict(STYLES)
    names = dict.fromkeys(n for row in rows for n in row["seconds"] if n not in ("ours", "softmax", "copy"))
    for name in names:
        right = [(i, r["seconds"]) for i, r in enumerate(rows) if name in r["seconds"] and name not in r["wrong"]]
        if right:
            marker, color = styles.setdefault(name, OTHERS[len(styles) % len(OTHERS)])
            ratios = [seconds[name]["median"] / seconds["ours"]["median"] for _, seconds in right]
            axes.scatter(ratios, [i for i, _ in right], marker=marker, color=color, s=18, label=name)
    axes.axvline(1, color="tab:blue", label="ours")
    axes.set(xscale="log", xlabel="time / ours", title=machine(result).split(";")[0])
    labels = [f"{r['op']} {shape_of(r)}" + (" + bwd" if "backward" in r["pass"] else "") for r in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=6)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7)
    write_picture(figure, path, dpi=100)
