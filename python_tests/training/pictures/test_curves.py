"""Pictures of metrics: which panels are drawn, in which order, with which titles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.training.pictures.colors import ALGORITHMS, PALETTE, distinct_colors
from automl_ext.training.pictures.curves import Stage, draw_curves, panels_of
from automl_ext.training.pictures.metric_names import METRICS, in_unit, metric
from automl_ext.training.pictures.titles import count, data_name, percent

STAGES = {
    "search": Stage("search"),
    "retrain": Stage("training of the cell"),
    "cell": Stage("training", label=lambda i: "random cells" if i else "given cell"),
}
ROWS: list[dict[str, Any]] = [
    {"step": 1, "search_loss": 2.0, "search_tau": 10.0, "search_support": 1.0},
    {"step": 2, "search_loss": 1.0, "search_tau": 5.0, "search_support": 1.0, "search_alpha_loss": 3.0},
    {"step": 3, "retrain_lr": 0.1, "retrain_loss": 2.0, "retrain_valid_accuracy": 0.5},
    {"step": 4, "retrain_lr": 0.05, "retrain_loss": 1.0, "retrain_valid_accuracy": 0.9},
]


def test_panels_of_a_search() -> None:
    """Accuracy first, stages by epoch from 1, no schedule, nothing constant."""
    panels = panels_of(ROWS, "step", STAGES)
    assert [(p.title, p.y, p.x) for p in panels] == [
        ("training of the cell", "accuracy, %", "epoch"),
        ("search", "loss", "epoch"),
        ("training of the cell", "loss", "epoch"),
    ]
    assert panels[0].lines == [("validation", [1, 2], [50.0, 90.0])]
    assert panels[1].lines == [("weights", [1, 2], [2.0, 1.0]), ("α", [2], [3.0])]
    assert panels[2].lines == [("weights", [1, 2], [2.0, 1.0])]


def test_networks_trained_one_after_the_other_share_a_panel() -> None:
    rows = [{"step": 3 * cell + e, f"cell{cell}_loss": cell + e} for cell in range(11) for e in (1, 2, 3)]
    (panel,) = panels_of(rows, "step", STAGES)
    assert all(line.x == [1, 2, 3] for line in panel.lines)
    assert [line.label for line in panel.lines] == ["given cell"] + 10 * ["random cells"]
    assert [line.y[0] for line in panel.lines] == [*range(1, 12)]


def test_steps_without_stages_are_drawn_as_logged() -> None:
    rows = [{"step": 100, "loss": 2.0, "eval_return": 1.0}, {"step": 200, "loss": 1.0, "eval_return": 2.0}]
    panels = panels_of(rows, "environment steps", {})
    assert [(p.x, p.y, p.lines[0].x) for p in panels] == [
        ("environment steps", "return of an episode", [100, 200]),
        ("environment steps", "loss", [100, 200]),
    ]


def test_constants_are_drawn_if_there_is_nothing_else() -> None:
    assert [p.y for p in panels_of([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}], "step", {})] == ["loss"]
    assert [p.y for p in panels_of([{"step": 1, "loss": 1.0, "new_metric": 2.0}], "step", {})] == ["loss", "new metric"]


def test_picture_has_title_legend_and_axes(tmp_path: Path, drawn_figures: list[Any]) -> None:
    draw_curves(ROWS, tmp_path / "curves.png", "GDAS on $digits \ud800", stages=STAGES, best=(2, "best epoch"))
    (figure,) = drawn_figures
    assert figure.get_suptitle() == r"GDAS on \$digits ?"
    accuracy, search, training = figure.axes
    assert [t.get_text() for t in accuracy.get_legend().get_texts()] == ["validation", "best epoch"]
    assert accuracy.lines[-1].get_xydata().tolist() == [[2.0, 90.0]]
    assert [t.get_text() for t in search.get_legend().get_texts()] == ["weights", "α"]
    assert training.get_legend() is None
    assert (search.get_xlabel(), search.get_ylabel()) == ("epoch", "loss")


def test_axis_in_percent_ends_at_100(tmp_path: Path, drawn_figures: list[Any]) -> None:
    rows = [{"step": e, "valid_accuracy": 0.98 + 0.01 * e} for e in (0, 1, 2)]
    draw_curves(rows, tmp_path / "curves.png")
    axes = drawn_figures[0].axes[0]
    assert axes.get_ylim()[1] == 100.0
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["validation"]


def test_single_epoch_has_a_whole_number(tmp_path: Path, drawn_figures: list[Any]) -> None:
    draw_curves([{"step": 7, "retrain_loss": 2.0}], tmp_path / "curves.png", stages=STAGES)
    (axes,) = drawn_figures[0].axes
    assert axes.get_xlim() == (0.5, 1.5)
    assert axes.lines[0].get_xdata().tolist() == [1]


def test_many_lines_have_no_legend(tmp_path: Path, drawn_figures: list[Any]) -> None:
    stages = {"member": Stage("training", label=lambda i: f"member {i}")}
    rows = [{"step": 2 * i + e, f"member{i}_loss": float(e)} for i in range(9) for e in (1, 2)]
    draw_curves(rows, tmp_path / "curves.png", stages=stages)
    assert drawn_figures[0].axes[0].get_legend() is None
    draw_curves(rows[:6], tmp_path / "curves.png", stages=stages)
    assert len(drawn_figures[1].axes[0].get_legend().get_texts()) == 3


def test_names_of_metrics() -> None:
    assert metric("eval_return/agent_0")[:2] == ("return of each agent or task", "agent_0")
    assert metric("late_accuracy").axis == "late accuracy, %"
    assert metric("noise_scale").axis == "noise scale"
    assert in_unit([0.5, 1.0], metric("late_accuracy").scale) == [50.0, 100.0]
    assert in_unit([0.5, 93.0], None) == [0.5, 93.0]  # logged in percent
    for axis in {m.axis for m in METRICS.values()}:
        labels = [m.label for m in METRICS.values() if m.axis == axis]
        assert len(labels) == 1 or all(labels), axis  # lines that share a panel have names, or exclude each other


def test_colors_of_algorithms() -> None:
    assert distinct_colors(["a2c", "dqn"]) == [ALGORITHMS["a2c"], ALGORITHMS["dqn"]]
    colors = distinct_colors(["dqn", "dqn", "unknown", "a2c"])
    assert colors[0] == ALGORITHMS["dqn"]
    assert colors[3] == ALGORITHMS["a2c"]
    assert len(set(colors)) == 4
    assert len(set(PALETTE)) == len(PALETTE)


def test_words_of_titles() -> None:
    names = [data_name(spec) for spec in ("digits", "cifar10:/data/f", "folder:/a/shapes", "npz:x/y.npz")]
    assert names == ["digits", "CIFAR-10", "shapes", "y.npz"]
    assert [count(n) for n in (950, 5590, 55_930, 300_000, 1_000_000, 12_300_000)] == [
        "950",
        "5.6 k",
        "56 k",
        "0.3 M",
        "1 M",
        "12 M",
    ]
    assert (percent(0.978), percent(93.86)) == ("97.8 %", "93.9 %")
