"""Draws cells whose nodes add operations on earlier states (DARTS, ReNAS).

A state is drawn as a horizontal line to the right of its box. Each operation has its own column: a dot on the line of
its input, a vertical line, and its name above the node that it enters. Names therefore do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_ext.nas.spaces.cell_genotype import Edge, Nodes
from automl_ext.nas.spaces.draw import DEAD_BOX, NODE_BOX, TITLE, operation_colors, save_figure, write_title
from automl_ext.training.pictures.colors import BLACK, FAINT, GRAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIXED_REDUCTION: Nodes = (
    (Edge("conv_1x3_3x1", 0),),
    (Edge("conv_1x3_3x1", 1),),
    (Edge("max_pool_3x3", 0),),
    (Edge("max_pool_3x3", 1),),
)
# Centimeters.
COLUMN, ROW = 2.9, 1.55  # width per operation, height per state
LEFT, RIGHT, TOP, BOTTOM = 2.4, 2.6, 1.5, 0.7  # margins
NAME_ABOVE_NODE = 0.78


def draw_cells(
    cells: Mapping[str, tuple[Nodes, Iterable[int]]], operations: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draw cells one below the other.

    Raises:
        ValueError: ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is not installed.
    """
    save_figure(lambda: cells_figure(cells, operations, title), path)


def cells_figure(
    cells: Mapping[str, tuple[Nodes, Iterable[int]]], operations: Sequence[str], title: str = ""
) -> Figure:
    """Make the matplotlib figure that :func:`draw_cells` saves."""
    from matplotlib.figure import Figure

    columns = max(sum(len(node) for node in nodes) for nodes, _ in cells.values())
    heights = [TOP + ROW * (1 + len(nodes)) + BOTTOM for nodes, _ in cells.values()]
    width, height = LEFT + COLUMN * columns + RIGHT, sum(heights) + (TITLE if title else 0)
    figure = Figure(figsize=(width / 2.54, height / 2.54))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    colors = operation_colors(operations)
    if title:
        write_title(axes, title, width)
    top = sum(heights)
    for (title, (nodes, outputs)), cell_height in zip(cells.items(), heights, strict=True):
        _draw_cell(axes, top, title, nodes, set(outputs), colors)
        top -= cell_height
    return figure


def _draw_cell(axes: Axes, top: float, title: str, nodes: Nodes, outputs: set[int], colors: Mapping[str, str]) -> None:
    rows = [top - TOP - ROW * state for state in range(2 + len(nodes))]
    boxes, column = [LEFT / 2, LEFT / 2], LEFT
    axes.text(0.3, top - 0.5, title, fontsize=11, fontweight="bold", va="center")
    ends: list[list[float]] = [[] for _ in rows]  # x positions at which each state is read
    for state, node in enumerate(nodes, start=2):
        columns = [column + COLUMN * (k + 0.5) for k in range(len(node))]
        column += COLUMN * len(node)
        boxes.append(sum(columns) / len(columns))
        for (operation, start), x in zip(node, columns, strict=True):
            color = colors.get(operation, "#333333")
            entry = boxes[-1] + 0.55 * (x - boxes[-1]) / COLUMN  # lines enter the box side by side
            axes.plot([x, x, entry], [rows[start], rows[state] + 0.52, rows[state] + 0.2], color=color, lw=2, zorder=2)
            axes.plot(x, rows[start], "o", color=color, ms=5, zorder=3)
            _name(axes, x, rows[state] + NAME_ABOVE_NODE, operation)
            ends[start].append(x)
    output = column + RIGHT / 2
    for state, y in enumerate(rows):
        if state in outputs or ends[state]:
            end = output if state in outputs else max(ends[state])
            axes.plot([boxes[state], end], [y, y], color="#555555" if state in outputs else FAINT, lw=1.5, zorder=1)
        name = ("cell k − 2", "cell k − 1")[state] if state < 2 else f"node {state - 1}"
        read = state in outputs or ends[state]
        box, color = (NODE_BOX, BLACK) if read else (DEAD_BOX, GRAY)
        axes.text(boxes[state], y, name, fontsize=10, color=color, ha="center", va="center", bbox=box, zorder=4)
    first, last = rows[min(outputs)], rows[max(outputs)]
    axes.plot([output, output], [first, last], color="#555555", lw=4, solid_capstyle="round", zorder=2)
    name = "concatenated" if len(outputs) > 1 else "output"
    axes.text(output, first + 0.45, name, fontsize=9, ha="center", va="center", color="#333333")


def _name(axes: Axes, x: float, y: float, operation: str) -> None:
    axes.text(
        x,
        y,
        operation,
        color=BLACK,
        fontsize=9,
        ha="center",
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        zorder=4,
    )
