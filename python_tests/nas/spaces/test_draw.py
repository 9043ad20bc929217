"""Drawings of cells."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from automl_ext.nas.spaces import draw_cells
from automl_ext.nas.spaces.draw import graph_figure, live_nodes
from automl_ext.nas.spaces.nasbench201 import OPERATIONS, Genotype, NASBench201
from automl_ext.nas.spaces.registry import space
from automl_ext.training.pictures.colors import BLACK, GRAY

SPACE = NASBench201()
CELL = Genotype(("nor_conv_3x3", "none", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"))


def test_png_is_not_empty_and_depends_on_the_cell(tmp_path: Path) -> None:
    from matplotlib.image import imread

    SPACE.draw(CELL, tmp_path / "cell.png")
    pixels = imread(tmp_path / "cell.png")[..., :3]
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert 0.02 < (pixels.min(-1) < 0.9).mean() < 0.5
    SPACE.draw(Genotype(("none",) * 6), tmp_path / "none.png")
    assert (tmp_path / "none.png").read_bytes() != (tmp_path / "cell.png").read_bytes()


def test_svg_contains_all_labels_and_is_reproducible(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        SPACE.draw(CELL, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for label in {"input", "node 1", "node 2", "output", *CELL.operations} - {"none"}:
        assert f"<!-- {label} -->" in text
    assert "<!-- none -->" not in text
    assert text.count("<!-- nor_conv_3x3 -->") == 2


@pytest.mark.parametrize("operation", OPERATIONS)
def test_labels_do_not_overlap(operation: str) -> None:
    nodes, edges = SPACE.graph(Genotype((operation,) * 6))
    title = "entmax-GDAS on a data set with a long name: 97.8 % test accuracy, 0.3 M parameters"
    labels = checked_labels(graph_figure(nodes, edges, OPERATIONS, title))
    assert len(labels) == (5 if operation == "none" else 11)


def test_nodes_on_no_path_are_gray() -> None:
    """Node 1 has no input, node 2 no path to the output."""
    operations = ("none", "nor_conv_3x3", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "none")
    nodes, edges = SPACE.graph(Genotype(operations))
    assert live_nodes(edges) == {"input", "output"}
    figure = graph_figure(nodes, edges, OPERATIONS)
    colors = {text.get_text(): text.get_color() for text in figure.axes[0].texts if text.get_text()}
    assert colors["input"] == colors["output"] == colors["nor_conv_1x1"] == BLACK
    assert colors["node 1\n(unused)"] == colors["node 2\n(unused)"] == colors["skip_connect"] == GRAY
    arrows = [text.arrow_patch for text in figure.axes[0].texts if getattr(text, "arrow_patch", None)]
    assert sorted(arrow.get_linewidth() for arrow in arrows) == [1.0, 1.0, 1.0, 2.5]
    assert live_nodes(SPACE.graph(Genotype(("none",) * 6))[1]) == set()


def checked_labels(figure: Any) -> list[tuple[str, Any]]:
    """Return the texts of a figure with their boxes; check that boxes do not overlap and lie inside the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    labels = []
    for text in figure.axes[0].texts:
        if text.get_text():
            labels.append((text.get_text(), (text.get_bbox_patch() or text).get_window_extent(renderer)))
    for (name_a, a), (name_b, b) in combinations(labels, 2):
        assert not a.overlaps(b), f"{name_a} and {name_b}"
    for _, box in labels:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    return labels


@pytest.mark.parametrize(("name", "operations"), [("darts", 16), ("darts-frc", 12), ("renas", 10)])
@pytest.mark.parametrize("choice", [0, -1, None])
def test_labels_of_cells_overlap_neither_each_other_nor_lines(
    name: str, operations: int, choice: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draw the cells with the first and the last choices, and a random one."""
    s = space(name)
    genotype = s.random(Random(1)) if choice is None else s.decode([range(n)[choice] for n in s.num_choices])
    figures: list[Any] = []
    monkeypatch.setattr(draw_cells, "save_figure", lambda make, path: figures.append(make()))
    s.draw(genotype, "cell.png")
    labels = [(text, box) for text, box in checked_labels(figures[0]) if "_" in text]  # operations
    assert len(labels) == operations
    state_lines = 0
    for line in figures[0].axes[0].lines:
        points = line.get_transform().transform(line.get_xydata())
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        if x1 > x0 and y1 == y0:  # the line of a state; that of an operation passes under its own name
            state_lines += 1
            for text, box in labels:
                assert not (x0 < box.x1 and box.x0 < x1 and box.y0 < y0 < box.y1), text
    assert state_lines >= (7 if name == "renas" else 12) - 2


def test_drawings_of_cells_are_reproducible(tmp_path: Path) -> None:
    genotype = space("darts").random(Random(0))
    for name in ("a.svg", "b.svg"):
        space("darts").draw(genotype, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for label in ("cell k − 2", "node 4", "normal cell", "reduction cell", "concatenated"):
        assert label in text
    with pytest.raises(ValueError, match=r"\.png or \.svg, got '.*cell\.jpg'"):
        space("darts").draw(genotype, tmp_path / "cell.jpg")


def test_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"automl_ext\[plot\]"):
        SPACE.draw(CELL, tmp_path / "cell.png")
