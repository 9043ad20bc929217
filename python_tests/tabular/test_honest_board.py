"""A leaderboard says when its values mean nothing: copies of rows, noise, an order in time."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from tables import classes, numbers

from automl_ext.tabular import fit
from automl_ext.tabular.advice import cut_short, starved
from automl_ext.tabular.candidates import CONSTANT, DEFAULTS, linear
from automl_ext.tabular.ensemble import leaderboard, standard_error
from automl_ext.tabular.reports.pictures import first_rows
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.problem import find_problem


def noise(rows: int, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(rows, 3)), columns=list("abc"))


def test_rows_that_occur_six_times_are_no_knowledge() -> None:
    rng = np.random.default_rng(0)
    frame = pd.concat([noise(300).assign(y=rng.choice(["u", "v"], 300))] * 6).sample(frac=1, random_state=0)
    fitted = fit(frame, "y", minutes=5, candidates=1, features=False)
    board = dict(zip(fitted.leaderboard["name"], fitted.leaderboard["log_loss"], strict=True))
    assert board["constant"] == pytest.approx(np.log(2), abs=0.01)
    assert board["ensemble"] == pytest.approx(np.log(2), abs=0.02)
    assert board["xgboost default"] > 1  # 8e-6 with copies on both sides
    assert fitted.report["notes"] == ["1,500 rows are copies of others: rows with equal features are in one fold"]
    assert [advice.split(":")[0] for advice in fitted.report["advice"]] == ["nothing beats the constant"]


@pytest.mark.parametrize("target", ["classes", "numbers"])
def test_copies_are_in_one_fold(target: str) -> None:
    """Some rows occur often, most once; a row with other features, or of another class, is no copy."""
    once, rng = noise(400), np.random.default_rng(1)
    once["y"] = rng.random(400) < 0.2 if target == "classes" else rng.normal(size=400)
    frame = pd.concat([once, once[:30], once[:30], once[:5]], ignore_index=True)
    problem = find_problem(frame.sample(frac=1, random_state=0), "y")
    a = problem.frame["a"].to_numpy()
    for split in problem.splits:
        assert not set(a[split.train]) & set(a[split.valid])
        assert abs(len(split.valid) - len(frame) / 5) <= 4
        if target == "classes":
            assert problem.y[split.valid].mean() == pytest.approx(problem.y.mean(), abs=0.03)
    assert find_problem(once, "y").notes == []


def test_equal_rows_of_few_categories_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 3, (300, 3)).astype(str), columns=list("abc"))
    frame["y"] = rng.choice(["u", "v"], 300)
    assert find_problem(frame, "y").notes == []
    usual = pd.DataFrame({"a": np.where(rng.random(300) < 0.6, 0, rng.normal(size=300)), "b": 0.0})
    usual["b"] = 2 * usual["a"]
    folds = find_problem(usual.assign(y=(usual["a"] > 0).astype(int)), "y").splits
    assert all(abs(len(split.valid) - 60) <= 2 for split in folds)  # 180 rows are zeros, and in all folds


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "rmse", "mae"])
def test_the_constant_is_the_best_one(metric: str) -> None:
    frame = classes() if metric in ("log_loss", "accuracy") else numbers()
    target = frame.columns[-1]
    problem = find_problem(frame, target, metric=metric, types={"day": "ignore"})
    trial = TableSearch(problem, float("inf"), 0, 1).run(CONSTANT, float("inf"))
    assert trial is not None
    for split, predicted in zip(problem.splits, np.split(trial.predicted, 5), strict=True):
        y = problem.y[split.train]
        best = np.bincount(y) / len(y) if problem.task.is_classification else [np.mean, np.median][metric == "mae"](y)
        np.testing.assert_allclose(predicted, np.broadcast_to(best, predicted.shape), rtol=1e-12)


@pytest.mark.parametrize(
    "y",
    [["u", "v"] * 5, [f"c{i % 10}" for i in range(40)], [i == 7 for i in range(200)]],
    ids=["ten rows", "four rows of each class", "one positive"],
)
def test_nothing_beats_the_constant(y: list[object]) -> None:
    fitted = fit(noise(len(y)).assign(y=y), "y", minutes=5, candidates=2)
    assert "constant" in set(fitted.leaderboard["name"])
    (advice,) = fitted.report["advice"]
    assert advice.startswith("nothing beats the constant: the ensemble's log loss is")


def test_a_model_that_beats_the_constant_has_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit(classes(), "y", minutes=5, candidates=2).report["advice"] == []
    monkeypatch.setattr("automl_ext.tabular.search.ENOUGH", 0)
    monkeypatch.setattr("automl_ext.tabular.search.WORTH", 1e9)  # one held-out part
    assert fit(numbers(), "price", minutes=5, candidates=2).report["advice"] == []


def test_models_that_the_time_cut_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    none, whole = fit(numbers(), "price", minutes=1e-9), fit(numbers(), "price", minutes=5, candidates=1)
    assert "there was no time for other models than linear ones: take more minutes" in none.report["advice"]
    assert whole.report["advice"] == []
    search = TableSearch(find_problem(numbers(), "price"), float("inf"), 0, 1)
    search.folds = search.folds[:1]
    for candidate in (CONSTANT, linear(100.0)):
        search.run(candidate, float("inf"))
    trial = search.run(DEFAULTS[0], 0.0)
    assert trial is not None
    text = "the time ended the training of every model but linear ones, xgboost default in round 1: take more minutes"
    assert cut_short(search) == [text]


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 7.0)
    fitted = fit(noise(60).assign(y=noise(60, 1)["a"]), "y", minutes=1e-9)
    (advice,) = [text for text in fitted.report["advice"] if "busy" in text]
    assert advice.startswith("fit had 0 CPU-seconds in ")
    assert fitted.report["cpu_seconds"] == 0
    assert starved(cpu=40, wall=60, budget=60) == starved(cpu=1, wall=10, budget=60) == []  # it ended by itself


@pytest.mark.parametrize("minutes", [1e-9, 5])
def test_the_constant_and_a_linear_model_are_on_every_board(minutes: float) -> None:
    for frame in (classes(), numbers()):
        names = set(fit(frame, frame.columns[-1], minutes=minutes, candidates=1).leaderboard["name"])
        assert {"constant", "linear, penalty 100"} < names


@pytest.mark.parametrize("metric", ["log_loss", "rmse", "auc"])
def test_the_value_of_the_ensemble_has_its_standard_error(metric: str) -> None:
    """Compared with the standard deviation over other draws of as many rows."""
    rng = np.random.default_rng(0)
    frame = classes() if metric != "rmse" else numbers()
    search = TableSearch(find_problem(frame, frame.columns[-1], metric=metric), float("inf"), 0, 1)
    trial = search.run(linear(100.0), float("inf"))
    assert trial is not None
    row = leaderboard(search, [1])[0]
    draws = [rng.integers(0, 240, 240) for _ in range(300)]
    expected = np.std([search.loss(search.valid_rows[draw], trial.predicted[draw]) for draw in draws])
    assert row["error"] == pytest.approx(expected, rel=0.4)


def test_the_baselines_are_shown_below_the_first_rows() -> None:
    names = ["ensemble", *(f"xgboost TPE {i}" for i in range(20))]
    names += ["linear, penalty 1", "linear, penalty 100", "constant"]
    shown = [row["name"] for row in first_rows([{"name": name} for name in names], 10)]
    assert shown == [*names[:10], "linear, penalty 1", "constant"]


def test_rows_that_belong_together_count_once_in_the_standard_error() -> None:
    frame = pd.concat([numbers(40)] * 6).assign(group=list(range(40)) * 6)
    search = TableSearch(find_problem(frame, "price", group="group"), float("inf"), 0, 1)
    value = {"group": 0.0, "random": 0.0}
    for kind in value:
        search.kind = kind  # type: ignore[assignment]
        value[kind] = standard_error(search, lambda part: float(search.y[search.valid_rows[part]].mean()))
    assert value["group"] > 1.5 * value["random"]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_target_that_grows_with_the_date_advises_a_split_by_time(is_ordered: bool) -> None:
    rng = np.random.default_rng(0)
    days = rng.permutation(300)
    frame = noise(300).assign(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"))
    frame["y"] = 3 * frame["a"] + (0.3 * days if is_ordered else 0) + rng.normal(size=300)
    advice = fit(frame, "y", minutes=5, candidates=1).report["advice"]
    assert [text.endswith("if new rows are later than these, use --time day") for text in advice] == [True] * is_ordered
    by_time = fit(frame, "y", minutes=5, candidates=1, time="day").report["advice"]
    assert not any("--time" in text for text in by_time)


@pytest.mark.parametrize("kind", ["class", "number", "few positives"])
def test_a_copy_of_the_target_with_errors_is_named(kind: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=1000) if kind == "number" else rng.random(1000) < (0.5 if kind == "class" else 0.1)
    wrong = rng.permutation(1000) < (10 if kind != "few positives" else 5)
    copy = np.where(wrong, rng.normal(size=1000) if kind == "number" else ~y, y)
    frame = noise(1000).assign(copy=-copy if kind == "number" else np.where(copy, "accepted", "refused"), y=y)
    share = {"number": "99.", "class": "99.0", "few positives": "99.5"}[kind]
    (note,) = find_problem(frame, "y").notes
    assert note.startswith(f"column 'copy' agrees with the target in {share}")
    rare = frame.assign(y=rng.random(1000) < 0.01)  # always saying no is right in 99 % of the rows
    assert find_problem(rare, "y").notes == []
