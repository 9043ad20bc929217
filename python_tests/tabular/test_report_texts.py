"""Texts of reports about a fit: numbers of a column alike, no explanation of bars that are not drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from automl_ext.tabular.reports.page import _table
from automl_ext.tabular.reports.pictures import _leaderboard
from automl_ext.tabular.table.task import find_task
from automl_ext.training.errors import UserError

pandas = pytest.importorskip("pandas")


def board(stds: list[float | None]) -> Any:
    rows = [
        {"name": f"m{i}", "rmse": 372_312.4 + i, "std": std, "error": None, "votes": 1} for i, std in enumerate(stds)
    ]
    return SimpleNamespace(task=SimpleNamespace(metric="rmse"), report={"leaderboard": rows})


@pytest.mark.parametrize(("stds", "explained"), [([None, None], False), ([None, 2.0], True)])
def test_bars_are_explained_where_there_are_some(stds: list[float | None], explained: bool) -> None:
    axes = Figure().add_subplot()
    _leaderboard(board(stds), axes)
    assert ("standard deviation" in axes.get_title()) == explained


def test_a_column_of_the_page_has_one_format() -> None:
    rows = [{"rmse": 372_312.4, "kept": True, "votes": 3}, {"rmse": 230_070.0, "kept": None, "votes": 0}]
    page = _table(rows, ("rmse", "kept", "votes"))
    cells = "<tr><td>372,312</td><td>yes</td><td>3</td></tr><tr><td>230,070</td><td>–</td><td>0</td></tr>"
    assert cells in page


@pytest.mark.parametrize(("value", "shown"), [("None", "'None'"), (7.0, "7"), (True, "True")])
def test_the_only_class_of_a_target_is_named(value: Any, shown: str) -> None:
    with pytest.raises(UserError, match=f"^target 'y': expected at least two different values, got only {shown}$"):
        find_task(pandas.Series([value] * 20), "y")
