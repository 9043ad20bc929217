"""The chart of the benchmark: families, the line at 1, and which direction is faster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from automl_ext.bench.command import BenchCommand, bench
from automl_ext.bench.reports.chart import MOST_PLACES, draw, places_by_family

RESULT = Path(__file__).parents[2] / "benchmarks/results/bench.json"


@pytest.fixture(scope="module")
def result() -> Any:
    return json.loads(RESULT.read_text())


@pytest.mark.slow
def test_chart_has_a_panel_per_family(result: Any, tmp_path: Path, drawn_figures: list[Any]) -> None:
    draw(result, tmp_path / "bench.png")
    (figure,) = drawn_figures
    families = [axes.get_title(loc="left") for axes in figure.axes]
    assert families == [name for name, places in places_by_family(result["rows"]).items() if places]
    assert all(1 in axes.lines[0].get_xdata() for axes in figure.axes)  # the line of equal speed
    assert figure.axes[-1].get_xlabel().endswith("faster →")
    row = next(r for r in result["rows"] if r["op"] == "entmax15" and r["shape"] == [14, 8] and r["pass"] == "forward")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    marks = [marks.get_offsets()[0].tolist() for marks in figure.axes[0].collections]
    seconds = row["seconds"]
    place = float(labels.index("entmax15 (14, 8)"))
    assert [seconds["compiled"]["median"] / seconds["ours"]["median"], place] in marks
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    contenders = {name for r in result["rows"] for name in r["seconds"]} - {"ours", "copy", "softmax"}
    assert len(legend) == len(contenders) + 3
    assert (tmp_path / "bench.png").stat().st_size < 150_000  # README shows it


def test_every_op_is_in_the_chart(result: Any) -> None:
    rows = result["rows"]
    families = places_by_family(rows)
    assert {op for places in families.values() for op, _ in places} == {row["op"] for row in rows}
    few = [row for row in rows if row["op"] == "entmax15"]
    assert len({tuple(row["shape"]) for row in few}) == len(places_by_family(few)["entmax"]) <= MOST_PLACES


@pytest.mark.slow
def test_recorded_result_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert bench(BenchCommand(table=RESULT, out=tmp_path / "new")) == 0
    assert (tmp_path / "new/bench.png").stat().st_size > 1000
    assert not (tmp_path / "new/bench.json").exists()
    assert "entmax15" in capsys.readouterr().out
