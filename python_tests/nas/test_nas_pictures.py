"""Pictures of searches, comparisons and ensembles: titles, points and marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_ext.nas.auto.auto_report import plot_auto
from automl_ext.nas.benchmarks.nas_bench_report import draw
from automl_ext.nas.plot import plot_run
from automl_ext.nas.training.network_pictures import run_title
from automl_ext.training.errors import UserError
from automl_ext.training.pictures.colors import color_of

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"


def fake_run(folder: Path, algorithm: str, rows: list[dict[str, Any]], result: Any = None, **config: Any) -> Path:
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps({"algorithm": algorithm}))
    (folder / "config.json").write_text(json.dumps({"data": "digits", **config}))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_titles() -> None:
    result = {"test_accuracy": 0.978, "parameters": 312_000}
    assert run_title("gdas", {"data": "digits"}, result) == "GDAS on digits: 97.8 % test accuracy, 0.3 M parameters"
    assert run_title("entmax-gdas", {"data": "folder:a/shapes"}, {}) == "entmax-GDAS on shapes: not finished"
    table = {"evaluator": "table", "data": "digits"}
    assert run_title("rea", table, {"score": 91.2, "evaluations": 30}) == (
        "REA on the table of NAS-Bench-201 (CIFAR-10): 91.2 % validation accuracy, 30 evaluations"
    )
    assert "NAS-Bench-201 (c100.npz): " in run_title("rea", table | {"table": "a/c100.npz"}, {"score": 91.2})
    assert "NAS-Bench-201 (5): " in run_title("rea", table | {"table": 5}, {"score": 91.2})  # a damaged file
    assert run_title("gdas", {"data": "own:a1a9b910"}, {}) == "GDAS on own images: not finished"
    assert run_title("retrain", {"data": "npz:d.npz"}, {"test_accuracy": "damaged"}) == "Training of one cell on d.npz"


def test_all_pictures_of_a_search_have_the_title(tmp_path: Path, drawn_figures: list[Any]) -> None:
    rows = [{"step": 1, "search_loss": 2.0}, {"step": 2, "search_loss": 1.0}, {"step": 3, "retrain_loss": 1.0}]
    result = {"genotype": CELL, "test_accuracy": 0.978, "parameters": 312_000}
    run = fake_run(tmp_path / "run", "gdas", rows, result)
    assert [path.name for path in plot_run(run)] == ["curves.png", "cell.png", "cell.svg"]
    curves, *cells = drawn_figures
    title = "GDAS on digits: 97.8 % test accuracy, 0.3 M parameters"
    assert curves.get_suptitle() == title
    for cell in cells:
        assert title in [text.get_text().replace("\n", " ") for text in cell.axes[0].texts]


def test_a_run_of_score_shows_the_architecture_with_the_best_rank(tmp_path: Path, drawn_figures: list[Any]) -> None:
    rows = [{"step": 1, "score_architectures": 3, "score_seconds": 0.5}]
    run = fake_run(tmp_path / "run", "score", rows, {"best": [{"genotype": CELL, "rank": 0.0}]})
    assert [path.name for path in plot_run(run)] == ["cell.png", "cell.svg"]
    shown = [text.get_text().replace("\n", " ") for text in drawn_figures[0].axes[0].texts]
    assert "Best cell by training-free scores on digits" in shown
    with pytest.raises(UserError, match=r"^plot: .*: expected a finished run of score"):
        plot_run(fake_run(tmp_path / "part", "score", rows))


def test_pictures_of_a_strategy_mark_the_best_architecture(tmp_path: Path, drawn_figures: list[Any]) -> None:
    scores = [0.5, 0.8, None, 0.8, 0.7]
    rows = [
        {"step": i + 1, "score": s, "best_score": min(0.5 + 0.3 * i, 0.8), "seconds": 10.0 * i, "failed": int(i > 1)}
        | {"parameters": 1000 * (i + 1), "cost": 2.0}
        for i, s in enumerate(scores)
    ]
    run = fake_run(tmp_path / "run", "rea", rows, {"score": 0.8, "evaluations": 5})
    assert [path.name for path in plot_run(run)] == ["curves.png", "trajectory.png", "pareto.png"]
    curves, trajectory, pareto = drawn_figures
    assert [axes.get_ylabel() for axes in curves.axes][:2] == ["validation accuracy, %", "parameters"]
    assert "seconds per evaluation" not in [axes.get_ylabel() for axes in curves.axes]  # constant
    assert curves.axes[0].get_xlabel() == "evaluation"
    assert texts(trajectory) == ["candidate", "best so far", "best architecture", "failed"]
    assert trajectory.axes[0].lines[-1].get_xydata().tolist() == [[10.0, 80.0]]
    assert texts(pareto) == ["candidate", "Pareto front", "best architecture"]
    assert pareto.axes[0].get_xlabel() == "parameters"
    assert [pareto.axes[0].xaxis.get_major_formatter()(x) for x in (900, 1_500, 230_000, 3e6)] == [
        "900",
        "1.5k",
        "230k",
        "3M",
    ]
    assert curves.axes[1].yaxis.get_major_formatter()(1_500) == "1.5k"
    assert pareto.axes[0].get_ylabel() == "validation accuracy, %"


def test_comparison_of_cells(tmp_path: Path, drawn_figures: list[Any]) -> None:
    rows = [{"step": 2 * i + e, f"cell{i}_loss": 1.0 / e, f"cell{i}_lr": 0.1} for i in range(4) for e in (1, 2)]
    random = [{"test_accuracy": 0.9 + 0.01 * i, "parameters": 1000 * i} for i in range(3)]
    result = {"found": {"test_accuracy": 0.97, "parameters": 5000}, "random": random, "random_median": 0.91}
    run = fake_run(tmp_path / "run", "compare", rows, result, genotype=CELL)
    assert [path.name for path in plot_run(run)] == ["curves.png", "comparison.png"]
    curves, comparison = drawn_figures
    assert texts(curves) == ["given cell", "random cells"]
    assert texts(comparison) == ["given cell: 97.0 %", "random cells (3)", "median of the random cells: 91.0 %"]
    axes = comparison.axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[5000.0, 97.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameters", "test accuracy, %")
    assert comparison.get_suptitle().replace("\n", " ") == (
        "Comparison of cells on digits: given cell 97.0 % test accuracy, median of 3 random cells 91.0 %"
    )


def test_ensemble_of_restarts_is_drawn_by_member(tmp_path: Path, drawn_figures: list[Any]) -> None:
    rows = [{"step": 2 * i + e, f"member{i}_loss": 1.0 / e} for i in range(3) for e in (1, 2)]
    members = [{"test_accuracy": 0.9 + 0.01 * i, "parameters": 1000} for i in range(3)]
    parts = {name: {"test_accuracy": 0.95} for name in ("greedy", "average", "best_single")}
    run = fake_run(tmp_path / "run", "ensemble", rows, {"members": members, **parts})
    assert [path.name for path in plot_run(run)] == ["curves.png", "comparison.png"]
    axes = drawn_figures[1].axes[0]
    assert axes.collections[0].get_offsets()[:, 0].tolist() == [1, 2, 3]
    assert axes.get_xlabel() == "network"
    assert len(texts(drawn_figures[1])) == 4


def test_accuracy_against_cost_of_search_auto(tmp_path: Path, drawn_figures: list[Any]) -> None:
    points = [{"seconds": 5, "test_accuracy": 0.9}, {"seconds": 8, "test_accuracy": 0.95}]
    result = {"trajectory": {"search": points, "plain CNN": points[1:]}, "network_name": "pooled, C = 8"}
    assert plot_auto(result, tmp_path / "accuracy.png", "a title") == [tmp_path / "accuracy.png"]
    axes = drawn_figures[0].axes[0]
    assert [line.get_xydata().tolist() for line in axes.get_lines()] == [[[5, 90], [8, 95]], [[8, 95]]]
    assert axes.get_xlim()[0] == 0
    (legend,) = drawn_figures[0].legends  # below the axes, where it hides no point
    assert [text.get_text() for text in legend.get_texts()] == ["search: pooled, C = 8", "plain CNN"]
    assert drawn_figures[0].get_suptitle() == "a title"
    assert plot_auto({"genotype": "x"}, tmp_path / "no.png", "") == []


@pytest.mark.parametrize("finished", [True, False])
def test_curves_of_search_auto_name_the_networks(tmp_path: Path, drawn_figures: list[Any], finished: bool) -> None:
    names = [f"pooled, C = {c}" for c in range(4, 11)] + ["plain, C = 8"]  # eight networks may race
    rows = [{"step": 8 * k + i + 1, f"race{i}_loss": 2.0 - k} for k in range(2) for i in range(len(names))]
    run = fake_run(tmp_path / "run", "auto", rows, {"networks": names} if finished else None)
    if not finished:
        (run / "best.json").write_text(json.dumps({"networks": names}))
    plot_run(run)
    assert texts(drawn_figures[0]) == names


def test_damaged_results_are_not_compared(tmp_path: Path) -> None:
    rows = [{"step": 1, "cell0_loss": 1.0}]
    for i, result in enumerate(({"found": 1, "random": [3, {"parameters": "x"}]}, {"members": {}}, {})):
        run = fake_run(tmp_path / f"run{i}", "compare", rows, result)
        assert [path.name for path in plot_run(run)] == ["curves.png"]


def test_regret_of_strategies(tmp_path: Path, drawn_figures: list[Any]) -> None:
    values = np.array([[np.nan, 90.0, 94.0, 94.37], [np.nan, 94.0, 94.27, 94.37]])
    draw({"rea": values, "random": values - 1}, 100.0, tmp_path / "nas_bench.png", optimum=94.37)
    axes = drawn_figures[0].axes[0]
    assert axes.lines[0].get_color() == color_of("rea")
    assert axes.lines[0].get_xdata().tolist() == [50.0, 75.0, 100.0]
    assert axes.lines[1].get_ydata().tolist() == pytest.approx([3.37, 1.235, 1.0])
    assert axes.lines[0].get_ydata()[-1] == 0.01  # the axis is logarithmic: no regret is drawn at its lower end
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() == 0.01
    assert [text.get_text() for text in drawn_figures[0].legends[0].get_texts()] == [
        "REA: 0.01 at the end",
        "random search: 1.00 at the end",
    ]
    assert axes.get_ylabel() == "test accuracy below the best cell (94.37 %), points"
    assert drawn_figures[0].legends[0].get_title().get_text() == "mean over runs, 95 % band"
    draw({"rea": values[:1]}, 100.0, tmp_path / "one.png", optimum=94.37)
    assert drawn_figures[1].legends[0].get_title().get_text() == ""
    assert drawn_figures[1].get_suptitle().replace("\n", " ").endswith("CIFAR-10, one run each")
