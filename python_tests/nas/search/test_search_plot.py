"""Pictures of a search with a strategy: the star of the best architecture, the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from automl_ext.nas.plot import stages
from automl_ext.nas.search.search_pictures import plot_search
from automl_ext.training.pictures.curves import panels_of


def evaluation(seconds: float, score: float, parameters: int, budget: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "score": score,
        "best_score": 0.9,
        "parameters": parameters,
        "macs": 10 * parameters,
        "budget": budget,
    }


ROWS = [
    evaluation(1, 0.5, 1_000_000, 1),
    evaluation(2, 0.7, 2_000_000, 1),
    evaluation(3, 0.9, 3_000_000, 1),
    evaluation(4, 0.7, 2_000_000, 2),
    evaluation(5, 0.9, 4_000_000, 2),
]


def stars(figure: Any) -> list[list[list[float]]]:
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "*"]
    return [line.get_xydata().tolist() for line in lines]


@pytest.mark.parametrize(
    ("row", "seconds", "shown"),
    [(1, 4, 2), (4, 5, 2), (0, 1, 3)],  # the first two rows of a result have the largest budget
)
def test_the_star_marks_the_result(
    tmp_path: Path, unrendered_figures: list[Any], row: int, seconds: int, shown: int
) -> None:
    result = {name: ROWS[row][name] for name in ("score", "parameters", "macs")}
    (tmp_path / "result.json").write_text(json.dumps(result))
    plot_search(ROWS, tmp_path)
    trajectory, pareto = unrendered_figures
    score, parameters = pytest.approx(100 * result["score"]), result["parameters"]
    assert stars(trajectory) == [[[seconds, score]]]
    assert stars(pareto) == [[[parameters, score]], [[10 * parameters, score]]]
    assert len(pareto.axes[0].collections[0].get_offsets()) == shown


def test_the_star_marks_the_final_training(tmp_path: Path, unrendered_figures: list[Any]) -> None:
    """Of the architecture that the final trainings chose; among the costs it has its score in the search."""
    finalists = [{"genotype": name, "search_score": s, "score": f} for name, s, f in (("a", 0.9, 0.6), ("b", 0.7, 0.8))]
    result = {"genotype": "b", "score": 0.8, "parameters": 2_000_000, "macs": 20_000_000, "finalists": finalists}
    (tmp_path / "result.json").write_text(json.dumps(result))
    finals = [{"seconds": 6 + i, "cost": 1, "final_score": one["score"]} for i, one in enumerate(finalists)]
    plot_search([*ROWS[:3], *finals], tmp_path)
    trajectory, pareto = unrendered_figures
    assert stars(trajectory) == [[[7, pytest.approx(80)]]]
    assert stars(pareto)[0] == [[2_000_000, pytest.approx(70)]]


def test_evaluations_after_a_screening_count_from_1() -> None:
    screened = [{"step": i, "screening_architectures": 10 * i} for i in (1, 2, 3)]
    rows = [*screened, {"step": 4, "score": 0.5}, {"step": 5, "score": 0.6}]
    (panel,) = panels_of(rows, "runs", stages({}))
    assert (panel.x, panel.lines[0].x) == ("evaluation", [1, 2])


def test_without_a_result_there_is_no_star(tmp_path: Path, unrendered_figures: list[Any]) -> None:
    plot_search(ROWS, tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"score": "damaged", "parameters": 1}))
    plot_search(ROWS, tmp_path)
    assert [stars(figure) for figure in unrendered_figures] == [[]] * 4
