"""Pictures of cells."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import pytest

from automl_ext.nas.draw import graph_figure
from automl_ext.nas.nasbench201 import OPERATIONS, Genotype, NASBench201

pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "automl_ext[plot]"')
SPACE = NASBench201()
CELL = Genotype(("nor_conv_3x3", "none", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"))


def test_png(tmp_path: Path) -> None:
    from matplotlib.image import imread

    SPACE.draw(CELL, tmp_path / "cell.png")
    pixels = imread(tmp_path / "cell.png")[..., :3]
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert 0.02 < (pixels.min(-1) < 0.9).mean() < 0.5
    SPACE.draw(Genotype(("none",) * 6), tmp_path / "none.png")
    assert (tmp_path / "none.png").read_bytes() != (tmp_path / "cell.png").read_bytes()


def test_svg_names_nodes_and_operations_and_is_repeatable(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        SPACE.draw(CELL, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for label in ("input", "node 1", "node 2", "output", *CELL.operations):
        assert f"<!-- {label} -->" in text
    assert text.count("<!-- nor_conv_3x3 -->") == 2


@pytest.mark.parametrize("operation", OPERATIONS)
def test_labels_do_not_overlap(operation: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    nodes, edges = SPACE.graph(Genotype((operation,) * 6))
    figure = graph_figure(nodes, edges, OPERATIONS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [t for t in figure.axes[0].texts if t.get_text()]
    assert len(texts) == 10
    boxes = [t.get_bbox_patch().get_window_extent(renderer) for t in texts]
    for (a, text_a), (b, text_b) in combinations(zip(boxes, texts, strict=True), 2):
        assert not a.overlaps(b), f"{text_a.get_text()} and {text_b.get_text()}"
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg, got '.*cell\.jpg'"):
        SPACE.draw(CELL, tmp_path / "cell.jpg")


def test_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"automl_ext\[plot\]"):
        SPACE.draw(CELL, tmp_path / "cell.png")
