"""Draws cells as graphs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_ext.training.errors import needs_extra
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLACK, FAINT, GRAY, PALETTE
from automl_ext.training.pictures.curves import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NODE_BOX = {"boxstyle": "round,pad=0.45", "facecolor": "#f1f1ee", "edgecolor": "#333333"}
DEAD_BOX = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": FAINT}
TITLE = 1.0  # height of the title, in centimeters


def draw_graph(
    nodes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str, str]],
    operations: Sequence[str],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw a cell as a graph: a box per node, and an arrow per edge, labeled with its operation.

    Edges with "none" are not drawn. Nodes that are on no path from an input to an output are gray and marked as unused;
    their edges are gray too.

    Args:
        nodes: name → position in centimeters. Choose positions so that edges do not cross.
        edges: (from, to, operation), those with "none" included.
        operations: all operations of the space; the index of an operation selects its color.
        path: the file, with the suffix .png or .svg.

    Raises:
        ValueError: ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is not installed.
    """
    save_figure(lambda: graph_figure(nodes, edges, operations, title), path)


def save_figure(make: Callable[[], Figure], path: str | Path) -> None:
    """Save the figure that ``make`` returns.

    Raises:
        ValueError: ``path`` has another suffix than .png and .svg.
        ModuleNotFoundError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"draw: path: expected a name ending in .png or .svg, got {str(path)!r}")
    with needs_extra("drawing a cell", "plot"):
        from matplotlib import rc_context
    figure = make()

    with rc_context({"svg.hashsalt": "automl_ext"}):  # otherwise, two files of the same cell differ
        write_picture(figure, path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def operation_colors(operations: Sequence[str]) -> dict[str, str]:
    """Map operations to colors; "none" has no color."""
    return {op: PALETTE[(k - 1) % len(PALETTE)] for k, op in enumerate(operations) if op != "none"}


def live_nodes(edges: Sequence[tuple[str, str, str]]) -> set[str]:
    """Return the nodes on any path from an input to an output, over edges without "none".

    Inputs are nodes that no edge enters, outputs nodes that no edge leaves.
    """
    starts, ends = {start for start, _, _ in edges}, {end for _, end, _ in edges}
    used = [(start, end) for start, end, operation in edges if operation != "none"]
    return reachable(starts - ends, used) & reachable(ends - starts, [(end, start) for start, end in used])


def reachable(nodes: set[str], edges: Sequence[tuple[str, str]]) -> set[str]:
    """Return ``nodes`` and all nodes to which a path leads from them."""
    found = set(nodes)
    while new := {end for start, end in edges if start in found} - found:
        found |= new
    return found


def graph_figure(
    nodes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str, str]],
    operations: Sequence[str],
    title: str = "",
) -> Figure:
    """Make the matplotlib figure that :func:`draw_graph` saves."""
    from matplotlib.figure import Figure

    xs, ys = zip(*nodes.values(), strict=True)
    width, height = max(xs) - min(xs) + 3.0, max(ys) - min(ys) + 1.6 + (TITLE if title else 0)
    figure = Figure(figsize=(width / 2.54, height / 2.54))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(min(xs) - 1.5, max(xs) + 1.5)
    axes.set_ylim(min(ys) - 0.8, min(ys) - 0.8 + height)
    axes.set_axis_off()
    if title:
        write_title(axes, title, width)
    colors, live = operation_colors(operations), live_nodes(edges)
    boxes = {}
    for name, (x, y) in nodes.items():
        boxes[name] = axes.text(
            x,
            y,
            name if name in live else f"{name}\n(unused)",
            fontsize=10,
            color=BLACK if name in live else GRAY,
            ha="center",
            va="center",
            bbox=NODE_BOX if name in live else DEAD_BOX,
        ).get_bbox_patch()
    for start, end, operation in edges:
        if operation == "none":
            continue
        runs = start in live and end in live
        axes.annotate(
            "",
            xy=nodes[end],
            xytext=nodes[start],
            arrowprops={
                "arrowstyle": "-|>",
                "color": colors.get(operation, GRAY) if runs else FAINT,
                "linewidth": 2.5 if runs else 1.0,
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
            color=BLACK if runs else GRAY,
            fontsize=9,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    return figure


def write_title(axes: Any, title: str, width: float) -> None:
    """Write a title of at most two lines at the top of axes that fill a figure; ``width`` in centimeters."""
    text = textwrap.fill(title, max(int(width * 5.4), 20))
    axes.text(0.5, 0.98, plain(text), transform=axes.transAxes, fontsize=10, ha="center", va="top", linespacing=1.15)
