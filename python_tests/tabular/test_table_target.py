"""The target: names of classes that look like missing values, codes, and words among numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tables import classes, table

from automl_ext.tabular import load
from automl_ext.tabular.runs import LightGBMOptions, cross_validate
from automl_ext.tabular.table.problem import Problem, find_problem
from automl_ext.tabular.table.table_files import read_table
from automl_ext.training.errors import UserError

NUMBERS = [str(i / 4) for i in range(60)]


def problem_of(values: list[str], folder: Path, task: str | None = None) -> Problem:
    """Write a CSV file with the cells ``values`` in the target, and read it."""
    lines = [f"{i * i % 37},{value}" for i, value in enumerate(values)]
    (folder / "t.csv").write_text("\n".join(["a,y", *lines, ""]))
    return find_problem(read_table(folder / "t.csv", target="y"), "y", task=task)


@pytest.mark.parametrize(
    ("values", "classes", "rows"),
    [
        (["None", "red", "", "nan"] * 10, ("None", "nan", "red"), 30),
        (["None", "NA"] * 10, ("NA", "None"), 20),
        (["True", "False", "null"] * 10, ("False", "True", "null"), 30),
        (["True", "False", ""] * 10, (False, True), 20),
        (["1", "2", "NA", ""] * 10, (1, 2), 20),
        (["011", "008"] * 10, ("008", "011"), 20),
        (["011", "008", "NA"] * 10, ("008", "011"), 20),
        (["011", "008"] * 10 + ["?"], ("008", "011"), 20),
        (["1", "2", "3"] * 10 + ["?"], (1, 2, 3), 30),
    ],
)
def test_classes_of_a_file(values: list[str], classes: tuple[object, ...], rows: int, tmp_path: Path) -> None:
    problem = problem_of(values, tmp_path)
    assert problem.task.classes == classes
    assert [type(label) for label in problem.task.classes] == [type(label) for label in classes]
    assert len(problem.y) == len(problem.frame) == rows
    assert [str(classes[i]) for i in problem.y] == [values[row] for row in problem.frame.index]


def test_a_word_among_numbers_is_missing(tmp_path: Path) -> None:
    cells = [*NUMBERS[:7], "?", *NUMBERS[7:], "NA"]
    problem = problem_of(cells, tmp_path)
    assert problem.task.kind == "regression"
    assert list(problem.y) == [float(cell) for cell in NUMBERS]
    assert problem.notes[:2] == ["target 'y': '?' counts as missing", "2 rows without a target are left out"]
    frame = pd.DataFrame({"a": np.arange(61) % 7, "y": cells[:-1]})
    assert list(find_problem(frame, "y").y) == list(problem.y)
    classes = problem_of(["1", "2"] * 30 + ["other"], tmp_path, "classification").task.classes
    assert classes == ("1", "2", "other")


def test_texts_of_numbers_are_labels_if_they_are_few() -> None:
    def task(values: list[str], kind: str | None = None) -> object:
        return find_problem(pd.DataFrame({"a": np.arange(len(values)) ** 2 % 37, "y": values}), "y", task=kind).task

    assert task(["1", "2"] * 10).classes == ("1", "2")  # type: ignore[attr-defined]
    assert task(NUMBERS).kind == "regression"  # type: ignore[attr-defined]
    assert task(["007", "012", "015"] * 10, "regression").kind == "regression"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("low", "high"), [("None", "NA"), ("None", "red"), ("008", "011")])
def test_classes_are_predicted_as_they_are_written(
    low: str,
    high: str,
    command: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = table(200).drop(columns="price")
    frame["y"] = frame["y"].map({"low": low, "high": high})
    frame.to_csv("t.csv", index=False)
    cross_validate("lightgbm", LightGBMOptions(table="t.csv", target="y", rounds=30), Path("run"))
    assert load("run").classes == tuple(sorted((low, high)))
    assert command("predict", "run", "t.csv", "--out", "p.csv")[0] == 0
    predicted = pd.read_csv("p.csv", dtype=str, keep_default_na=False)["y"]
    assert (predicted == frame["y"]).mean() > 0.8


def test_a_word_in_a_target_of_numbers_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = table(100).drop(columns="y").astype({"price": str})
    frame.loc[3, "price"] = "?"
    frame.to_csv("t.csv", index=False)
    result = cross_validate("lightgbm", LightGBMOptions(table="t.csv", target="price", rounds=5), Path("run"))
    assert (result["task"], result["rows"]) == ("regression", 99)


def test_a_target_may_have_a_number_as_its_name() -> None:
    frame = classes(40)[["a", "y"]].rename(columns={"a": 0, "y": 1})
    assert find_problem(frame, 1).task.target == "1"  # type: ignore[arg-type]


def test_dates_are_no_target() -> None:
    days = pd.Series(pd.date_range("2020-01-01", periods=40))
    for values in (days, days.astype(str), days.dt.date):
        with pytest.raises(UserError, match="target 'day': expected numbers or classes, got dates or durations"):
            find_problem(classes(40).assign(day=values), "day")


@pytest.mark.parametrize(
    ("value", "given", "message"),
    [
        (-1.0, {"weight": "c"}, "column 'c' has -1 in row 31"),
        ("much", {"weight": "c"}, "column 'c', row 31: expected a number, got 'much'"),
        ("much", {"types": {"c": "boolean"}}, "column 'c', row 31: expected true or false, got 'much'"),
    ],
)
def test_messages_have_the_numbers_of_the_given_rows(value: Any, given: Any, message: str) -> None:
    frame = classes(60).assign(c=[1.0] * 30 + [value] + [1.0] * 29)
    frame.loc[:9, "y"] = None
    with pytest.raises(UserError, match=message):
        find_problem(frame, "y", **given)
