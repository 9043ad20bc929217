"""Portfolios: reading of studies, the greedy choice and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_ext.training.errors import UserError
from automl_ext.training.search_space import Categories, Range
from automl_ext.tune.portfolio import FOLDER, Portfolio, file_name, portfolio, read_portfolio
from automl_ext.tune.portfolio_building import (
    PastStudy,
    PastTrial,
    build_portfolio,
    gower_distances,
    greedy,
    normalized,
    read_study,
    score_table,
)

Command = Callable[..., tuple[int, str, str]]


def study_file(path: Path, values: dict[float, float | None], **changes: Any) -> Path:
    """Write a study whose points have one option, ``lr``; the value None is a failed trial."""
    trials = [
        {"point": {"lr": lr}, "value": value, "state": "failed" if value is None else "finished"}
        for lr, value in values.items()
    ]
    path.write_text(json.dumps({"command": "train x", "trials": trials, "maximize": True, **changes}))
    return path


def past(values: dict[str, float], maximize: bool = True) -> PastStudy:
    trials = [PastTrial({"name": name}, value) for name, value in values.items()]
    return PastStudy("train x", trials, maximize, "study")


def test_scores_go_from_the_median_to_the_best() -> None:
    assert normalized([0.0, 2.0, 3.0, 4.0, -math.inf]) == [0.0, 0.0, 0.5 / 1.5, 1.0, 0.0]
    assert normalized([1.0, 1.0, -math.inf]) == [1.0, 1.0, 0.0]


def test_the_first_point_is_good_everywhere_the_next_ones_fill_gaps() -> None:
    # Column 1 has the second highest mean, and adds nothing to column 0.
    scores = np.array([[0.7, 0.7, 0.0, 1.0], [0.8, 0.7, 0.2, 0.0], [0.2, 0.0, 1.0, 0.0]])
    assert greedy(scores, 10) == [0, 2, 3, 1]
    assert greedy(scores, 2) == [0, 2]
    assert greedy(scores, 10, left_out=[2]) == [0, 3, 1]


def test_a_point_that_is_often_good_comes_before_the_best_of_one_study() -> None:
    scores = np.array([[0.9, 0.95, 0.0, 0.8], [0.9, 0.0, 0.92, 0.8]])
    assert greedy(scores, 4) == [0, 3, 1, 2]  # columns 1 and 2 add 0.025 and 0.01, column 3 has the higher mean


def test_portfolio_of_complete_studies() -> None:
    first = past({"a": 0.9, "b": 1.0, "c": 0.1, "d": 0.0})
    second = past({"a": -9.0, "b": 0.0, "c": -8.0, "d": 0.0}, maximize=False)  # an error: −9 is best
    built = build_portfolio([first, second], size=2)
    assert built.points == [{"name": "a"}, {"name": "b"}]


def test_the_defaults_are_evaluated_first_and_never_chosen() -> None:
    scores = np.array([[1.0, 0.9, 0.3], [0.0, 0.7, 0.9]])
    assert greedy(scores, 10) == [1, 2, 0]
    assert greedy(scores, 10, first=[0]) == [2, 1]  # after column 0, column 1 adds less than column 2
    trials = [PastTrial({}, 1.0), PastTrial({"lr": 1}, 0.9), PastTrial({"lr": 2}, 0.3)]
    built = build_portfolio([PastStudy("x", trials, True, "")])
    assert built.points == [{"lr": 1}, {"lr": 2}]


def test_a_missing_score_is_like_that_of_near_points() -> None:
    def of(values: dict[float, float]) -> PastStudy:
        return PastStudy("x", [PastTrial({"lr": lr}, value) for lr, value in values.items()], True, "")

    points, scores = score_table([of({1.0: 0.0, 2.0: 0.5, 3.0: 1.0}), of({1.1: 0.0, 3.1: 1.0, 2.9: 1.0})])
    estimated = dict(zip([point["lr"] for point in points], scores[0], strict=True))
    assert not np.isnan(scores).any()
    assert 0 < estimated[1.1] < estimated[2.9] < estimated[3.0] < 1


def test_the_regression_takes_out_noise() -> None:
    """Between two points with the highest score, the one among good points is preferred to the one among bad ones."""
    values = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.8, 1.0, 0.8, 0.8]
    trials = [PastTrial({"lr": float(i)}, value) for i, value in enumerate(values)]
    points, scores = score_table([PastStudy("x", trials, True, "")])
    assert points[int(scores[0].argmax())] == {"lr": 8.0}
    assert scores[0, 2] < scores[0, 7]  # whose own value is lower


def test_distances_of_numbers_words_and_absent_options() -> None:
    distances = gower_distances([{"a": 1, "b": "x"}, {"a": 10, "b": "x"}, {"a": 100, "b": None}, {"a": 1}])
    assert distances[0].tolist() == [0.0, 0.25, 1.0, 0.5]
    assert distances[2, 3] == 1.0  # an absent option differs from None
    assert (distances == distances.T).all()


def test_failed_and_pruned_trials_are_never_chosen(tmp_path: Path) -> None:
    path = study_file(tmp_path / "a.json", {0.1: 1.0, 0.2: 2.0, 0.201: None})
    content = json.loads(path.read_text())
    content["trials"].append({"point": {"lr": 0.4}, "value": 9.0, "state": "pruned"})
    path.write_text(json.dumps(content))
    built = build_portfolio([read_study(path)])
    assert built.points == [{"lr": 0.2}, {"lr": 0.1}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": 3}, '"command": expected a str; got 3'),
        ({"trials": {}}, '"trials": expected a list'),
        ({"trials": []}, "expected at least one finished trial"),
        ({"trials": [3]}, "trial 0: expected a JSON object"),
        ({"trials": [{"point": {}, "value": 1, "state": "done"}]}, '"state": expected one of finished'),
        ({"trials": [{"point": {}, "value": None, "state": "finished"}]}, '"value": expected a finite number'),
        ({"trials": [{"point": {"a": [1]}, "value": 1, "state": "finished"}]}, '"point", a: expected'),
        ({"maximize": "yes"}, '"maximize": expected a bool'),
    ],
)
def test_a_file_that_is_no_study_is_refused_by_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_study(study_file(tmp_path / "a.json", {0.1: 1.0}, **changes))


def test_studies_of_two_commands_are_refused() -> None:
    other = PastStudy("train y", [PastTrial({}, 1.0)], True, "")
    with pytest.raises(UserError, match=r"one command, got 'train x', 'train y'"):
        build_portfolio([past({"a": 1.0}), other])
    with pytest.raises(UserError, match="got none"):
        build_portfolio([])


def test_what_the_package_contains_is_readable() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert len(files) == 2
    for path in files:
        found = read_portfolio(path)
        assert path.name == file_name(found.command)
        assert portfolio(found.command) == found.points != []
    assert portfolio("train unknown") == []
    assert portfolio("train ../unknown") == []


def test_the_command_builds_a_file_that_is_read_again(tmp_path: Path, command: Command) -> None:
    studies = [
        study_file(tmp_path / "a.json", {0.1: 0.8, 0.2: 0.9, 0.3: 0.1, 0.4: None}),
        study_file(tmp_path / "b.json", {0.1: 0.8, 0.2: 0.3, 0.3: 0.1, 0.4: 0.2}),
    ]
    out = tmp_path / "new" / "p.json"
    code, printed, _ = command("portfolio", *studies, "--out", out, "--size", 2, "--json")
    assert (code, json.loads(printed)) == (0, {"command": "train x", "studies": 2, "points": 2})
    assert portfolio("train x", out) == [{"lr": 0.2}, {"lr": 0.1}]
    with pytest.raises(UserError, match=r"expected a portfolio of 'train y', got one of 'train x'"):
        portfolio("train y", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "p.json"], "expected run directories"),
        (["a.json", "--out", "p.json", "--size", "0"], "--size: expected at least 1, got 0"),
        (["a.json", "--out", "p.txt"], "--out: expected a file NAME.json"),
        (["a.json", "--out", "p.json"], "cannot read a.json"),
    ],
)
def test_wrong_options_end_the_command(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = command("portfolio", *arguments)
    assert code == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"format": 3}, {"points": [3]}, {"command": None}])
def test_a_damaged_portfolio_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(Portfolio("train x", [], "test").as_dict() | change))
    with pytest.raises(UserError, match=next(iter(change)) if "points" not in change else '"point"'):
        read_portfolio(file)


@pytest.mark.parametrize(
    ("point", "got"),
    [
        ({"lr": 5.0}, "lr: expected a number from 0.1 to 1 or a number from 0.1 to 2, got 5.0"),
        ({"lr": "0.5"}, "lr: expected a number .*, got '0.5'"),
        ({"lr": True}, "lr: expected a number .*, got True"),
        ({"size": 3.0}, "size: expected an int from 1 to 4, got 3.0"),
        ({"kind": "c"}, "kind: expected one of 'a', 'b', got 'c'"),
        ({"lr": 1.5, "size": 4, "kind": "b", "other": 1}, None),
        ({"lr": 0.0}, None),  # a default may be outside of its range
    ],
)
def test_a_point_outside_of_its_ranges_is_refused(point: dict[str, Any], got: str | None, tmp_path: Path) -> None:
    declared = {"lr": Range(0.1, 1.0), "size": Range(1, 4), "kind": Categories("a", "b")}
    spaces = [declared, {"lr": Range(0.1, 2.0)}]  # the second one is of --ranges
    file = tmp_path / "p.json"
    file.write_text(json.dumps(Portfolio("train x", [{"lr": 0.5}, point], "test").as_dict()))
    if got is None:
        assert portfolio("train x", file, spaces, {"lr": 0.0}) == [{"lr": 0.5}, point]
        return
    with pytest.raises(UserError, match=f"p.json: point 2: {got}"):
        portfolio("train x", file, spaces, {"lr": 0.0})


def test_tuning_refuses_a_portfolio_before_there_is_a_run(tmp_path: Path, command: Command) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(Portfolio("train a2c", [{"lr": 1e9}], "test").as_dict()))
    flags = ["tune", "train", "a2c", "--trials", 1, "--portfolio", file, "--out", tmp_path / "run"]
    code, _, error = command(*flags)
    assert (code, (tmp_path / "run").exists()) == (2, False)
    assert "point 1: lr: expected a number from 1e-05 to 0.01, got 1000000000.0" in error


@pytest.mark.parametrize("learner", ["lightgbm", "xgboost"])
def test_the_points_of_the_package_are_in_the_spaces_of_the_learners(learner: str) -> None:
    from automl_ext.tabular.learners.registry import LEARNERS
    from automl_ext.training.search_space import Range, search_space

    space = search_space(LEARNERS[learner].settings)
    points = portfolio(f"fit --learner {learner}")
    assert len(points) == 10
    for point in points:
        assert point.keys() == space.keys()
        for name, values in space.items():
            inside = (
                values.low <= point[name] <= values.high if isinstance(values, Range) else point[name] in values.values
            )
            assert inside, (name, point[name])
