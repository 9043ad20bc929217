"""Pictures of a fitted ensemble show the numbers of the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from automl_ext.tabular.reports.pictures import draw_pictures
from automl_ext.tabular.table.task import find_task

pandas = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")


def fitted(target: Any, predicted: Any, gains: bool = False) -> Any:
    task = find_task(pandas.Series(target), "y")
    y = np.searchsorted(task.classes, target) if task.is_classification else target
    rows = [
        {"name": name, task.metric: value, "error": error, "std": std, "votes": votes}
        for name, value, error, std, votes in (("ensemble", 0.25, 0.05, None, 0), ("a", 0.5, None, 0.125, 2))
    ]
    features = [
        {"family": "dates", "gain": 0.5, "error": 0.25, "kept": True},
        {"family": "texts", "gain": None, "error": None, "kept": False},
    ]
    return SimpleNamespace(
        task=task,
        report={"leaderboard": rows, "features": features[:1] if gains else features[1:]},
        evaluation={"y": y, "predicted": predicted},
        importance=lambda: {"age": 0.75, "city": 0.25},
    )


def test_classes(tmp_path: Path, drawn_figures: list[Any]) -> None:
    """A thousand rows whose class is true with the predicted probability."""
    probability = (np.arange(1000) + 0.5) / 1000
    target = ["yes" if (37 * i) % 1000 < i else "no" for i in range(1000)]
    found = draw_pictures(fitted(target, np.stack([1 - probability, probability], 1), gains=True), tmp_path)
    names = {
        "Leaderboard": "leaderboard.png",
        "Importance of features": "importance.png",
        "Calibration": "calibration.png",
        "Gain of constructed features": "features.png",
    }
    assert found == {title: tmp_path / name for title, name in names.items()}
    board, importance, calibration, gains = (figure.axes[0] for figure in drawn_figures)
    points = [(bar[0].get_xydata().tolist(), bar[2][0].get_segments()[0].tolist()) for bar in board.containers]
    assert points == [
        ([[0.25, 0]], [[pytest.approx(0.2), 0], [pytest.approx(0.3), 0]]),
        ([[0.5, 1]], [[0.375, 1], [0.625, 1]]),
    ]
    assert [label.get_text() for label in board.get_yticklabels()] == ["ensemble", "a"]
    assert board.yaxis_inverted()  # the ensemble is on top
    assert [bar.get_width() for bar in importance.patches] == [75, 25]
    diagonal, curve = calibration.get_lines()
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert np.allclose(curve.get_xdata(), np.arange(0.05, 1, 0.1))
    assert np.abs(curve.get_xdata() - curve.get_ydata()).max() < 0.06
    assert gains.get_lines()[0].get_xydata().tolist() == [[0.5, 0]]


def test_numbers(tmp_path: Path, drawn_figures: list[Any]) -> None:
    y, predicted = np.linspace(1.0, 9.0, 50), np.linspace(2.0, 12.0, 50)
    found = draw_pictures(fitted(y, predicted), tmp_path)
    assert list(found) == ["Leaderboard", "Importance of features", "Predicted against true"]
    axes = drawn_figures[-1].axes[0]
    points = sorted(map(tuple, axes.collections[0].get_offsets().tolist()))
    assert points == list(zip(y.tolist(), predicted.tolist(), strict=True))
    assert axes.get_lines()[0].get_xydata().tolist() == [[1, 1], [12, 12]]
