"""Draws cells as graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_ext.training.files.atomic import write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#1b6ca8", "#c8553d", "#4f772d", "#7b4b94", "#a06a00", "#0f766e", "#9d174d", "#475569")
FAINT = "#c4c4c4"
NODE_BOX = {"boxstyle": "round,pad=0.45", "facecolor": "#f1f1ee", "edgecolor": "#333333"}


def draw_graph(
    nodes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str, str]],
    operations: Sequence[str],
    path: str | Path,
) -> None:
    """Draw a cell as a graph: a box per node, and an arrow per edge, labeled with its operation.

    Args:
        nodes: name → position in centimeters. Choose positions so that edges do not cross.
        edges: (from, to, operation); "none" is drawn in gray.
        operations: all operations of the space; the index of an operation selects its color.
        path: the file, with the suffix .png or .svg.

    Raises:
        ValueError: ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is not installed.
    """
    save_figure(lambda: graph_figure(nodes, edges, operations), path)


def save_figure(make: Callable[[], Figure], path: str | Path) -> None:
    """Save the figure that ``make`` returns.

    Raises:
        ValueError: ``path`` has another suffix than .png and .svg.
        ModuleNotFoundError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"draw: path: expected a name ending in .png or .svg, got {str(path)!r}")
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'drawing a cell needs matplotlib: pip install "automl_ext[plot]"', name="matplotlib"
        ) from None
    figure = make()

    with rc_context({"svg.hashsalt": "automl_ext"}):  # makes the files of equal cells equal
        write_picture(figure, path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def operation_colors(operations: Sequence[str]) -> dict[str, str]:
    """Map operations to colors; "none" has no color."""
    return {op: _COLORS[k % len(_COLORS)] for k, op in enumerate(operations) if op != "none"}


def graph_figure(
    nodes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str, str]], operations: Sequence[str]
) -> Figure:
    """Make the matplotlib figure that :func:`draw_graph` saves."""
    from matplotlib.figure import Figure

    xs, ys = zip(*nodes.values(), strict=True)
    width, height = max(xs) - min(xs) + 3.0, max(ys) - min(ys) + 1.6
    figure = Figure(figsize=(width / 2.54, height / 2.54))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(min(xs) - 1.5, max(xs) + 1.5)
    axes.set_ylim(min(ys) - 0.8, max(ys) + 0.8)
    axes.set_axis_off()
    colors = operation_colors(operations)
    boxes = {}
    for name, (x, y) in nodes.items():
        boxes[name] = axes.text(
            x,
            y,
            name,
            fontsize=10,
            ha="center",
            va="center",
            bbox=NODE_BOX,
        ).get_bbox_patch()
    for start, end, operation in edges:
        color = colors.get(operation, FAINT)
        axes.annotate(
            "",
            xy=nodes[end],
            xytext=nodes[start],
            arrowprops={
                "arrowstyle": "-|>",
                "color": color,
                "linewidth": 1.0 if operation == "none" else 2.0,
                "linestyle": "dotted" if operation == "none" else "solid",
                "patchA": boxes[start],
                "patchB": boxes[end],
                "shrinkA": 2,
                "shrinkB": 4,
                "mutation_scale": 15,
            },
        )
        (x0, y0), (x1, y1) = nodes[start], nodes[end]
        axes.text(
            (x0 + x1) / 2,
            (y0 + y1) / 2,
            operation,
            color="#9a9a9a" if operation == "none" else color,
            fontsize=9,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    return figure
