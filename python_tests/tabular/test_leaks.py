"""Leaks that are planted in a table, and must not be used or must be named."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from tables import classes, numbers

from automl_ext.tabular import fit
from automl_ext.tabular.candidates import DEFAULTS
from automl_ext.tabular.features.choice import judge_families
from automl_ext.tabular.features.families import FAMILIES, Rows, target_means_out_of_fold
from automl_ext.tabular.features.preparation import prepare
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.columns import Column, find_columns
from automl_ext.tabular.table.problem import find_problem
from automl_ext.tabular.table.task import find_task

NEVER = float("inf")
CODE = [Column("code", "categorical", "")]


def codes(rows: int, values: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Categories with few rows each, and a target that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"code": np.char.add("c", rng.integers(0, values, rows).astype(str))}), rng.normal(size=rows)


def test_a_target_mean_does_not_see_its_own_row() -> None:
    """The target of one row is changed: the mean of that row stays, and those of other rows of its category change."""
    frame, y = codes(60, 4)
    changed = y.copy()
    changed[7] += 1000
    before, after = (
        target_means_out_of_fold(Rows(frame, CODE, values[:, None], seed=3))[0][1] for values in (y, changed)
    )
    assert before[7] == after[7]
    assert (before != after).any()


def test_target_means_of_noise_carry_no_target() -> None:
    frame, y = codes(600, 300)
    out_of_fold = target_means_out_of_fold(Rows(frame, CODE, y[:, None], seed=0))[0][1]
    state = FAMILIES["target means"].fit(Rows(frame, CODE, y[:, None], seed=0))
    leaking = FAMILIES["target means"].apply(frame, state)[0][1]
    assert np.corrcoef(leaking, y)[0, 1] > 0.4  # the planted leak: means that see their own rows
    assert np.corrcoef(out_of_fold, y)[0, 1] < 0.1


def test_training_rows_get_the_target_means_out_of_fold() -> None:
    frame, y = codes(200, 100)
    task = find_task(pd.Series(y), "y")
    preparation, matrix = prepare(frame, CODE, y, task, ["target means"], seed=0)
    column = preparation.feature_names().index("target mean 0 of code")
    assert abs(np.corrcoef(matrix.x[:, column], y)[0, 1]) < 0.3
    assert not np.allclose(matrix.x[:, column], preparation.apply(frame).x[:, column])


def test_noise_with_many_categories_is_not_worth_target_means() -> None:
    frame, y = codes(300, 150)
    problem = find_problem(frame.assign(z=np.random.default_rng(1).normal(size=300), y=y), "y")
    search = TableSearch(problem, NEVER, 0, 1)
    trial = search.run(DEFAULTS[1], NEVER)
    assert trial is not None
    verdicts = {verdict.family: verdict for verdict in judge_families(search, trial, NEVER)}
    assert not verdicts["target means"].kept
    assert verdicts["target means"].gain is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_preparation_learns_from_training_rows_alone(family: str) -> None:
    """Validation rows with other numbers and categories do not change what was learned."""
    frame = numbers(120)
    problem = find_problem(frame, "price")
    train, y = problem.frame.iloc[:80], problem.y[:80]
    other = problem.frame.copy()
    other.loc[80:, "a"] = 1e6
    other.loc[80:, "city"] = "Zurich"
    columns = [column for column in problem.columns if column.is_used]
    first, _ = prepare(train, columns, y, problem.task, [family])
    second, _ = prepare(other.iloc[:80], columns, y, problem.task, [family])
    assert asdict(first) == asdict(second)
    assert "Zurich" not in str(first)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rows_features_do_not_depend_on_the_other_rows(family: str) -> None:
    problem = find_problem(numbers(60), "price")
    columns = [column for column in problem.columns if column.is_used]
    preparation, _ = prepare(problem.frame, columns, problem.y, problem.task, [family])
    alone = [preparation.apply(problem.frame.iloc[[i]]).x for i in range(60)]
    np.testing.assert_array_equal(preparation.apply(problem.frame).x, np.concatenate(alone))


def test_each_fold_is_prepared_by_its_own_training_rows() -> None:
    frame = classes(100)
    problem = find_problem(frame, "y")
    only = int(problem.splits[0].valid[0])
    problem.frame.loc[only, "city"] = "Only here"
    search = TableSearch(problem, NEVER, 0, 1)
    categories = [search.matrices(fold, basic=True)[0].categories["city"] for fold in search.folds]
    assert ["Only here" in found for found in categories] == [False, True, True, True, True]


@pytest.fixture(scope="module")
def fitted_classes() -> object:
    return fit(classes(), "y", minutes=5, candidates=3, features=True)


@pytest.mark.slow
def test_a_prediction_does_not_depend_on_the_other_rows(fitted_classes: object) -> None:
    new = classes(60, seed=9)
    together = fitted_classes.predict_proba(new)  # type: ignore[attr-defined]
    shuffled = fitted_classes.predict_proba(new.iloc[::-1])[::-1]  # type: ignore[attr-defined]
    alone = np.concatenate([fitted_classes.predict_proba(new.iloc[[i]]) for i in range(60)])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(together, shuffled)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_the_target_in_the_table_to_predict_is_ignored(fitted_classes: object) -> None:
    new = classes(30, seed=9)
    expected = fitted_classes.predict_proba(new.drop(columns="y"))  # type: ignore[attr-defined]
    for values in ("high", "low", None, 3.5):
        np.testing.assert_array_equal(fitted_classes.predict_proba(new.assign(y=values)), expected)  # type: ignore[attr-defined]


def test_validation_rows_are_later_than_training_rows() -> None:
    frame = numbers(200)
    problem = find_problem(frame.sample(frac=1, random_state=0), "price", time="day")
    day = frame.sample(frac=1, random_state=0)["day"].to_numpy()
    assert len(problem.splits) >= 3
    for split in problem.splits:
        assert day[split.train].max() < day[split.valid].min()
    assert "day" not in problem.frame


def test_the_future_of_a_random_walk_is_unknown() -> None:
    """By time, the planted copy of the past cannot help; a random split would predict well, by neighbors in time."""
    rng = np.random.default_rng(0)
    walk = rng.normal(size=300).cumsum()
    frame = pd.DataFrame({"when": np.arange(300), "step": np.arange(300) + rng.normal(size=300), "y": walk})
    by_time, at_random = (
        fit(frame, "y", minutes=5, candidates=2, features=False, time=time).leaderboard for time in ("when", None)
    )
    assert by_time["rmse"][1] > 2 * at_random["rmse"][1]


def test_a_group_is_never_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 30, 300)
    level = rng.normal(size=30)[group]  # the group's level is known from its other rows
    frame = pd.DataFrame({"group": group, "mark": level + 1e-3 * rng.normal(size=300)})
    frame["y"] = rng.normal(size=30)[group] + 0.01 * rng.normal(size=300)
    problem = find_problem(frame, "y", group="group")
    for split in problem.splits:
        assert not set(group[split.train]) & set(group[split.valid])
    assert "group" not in problem.frame
    by_group, at_random = (
        fit(frame, "y", minutes=5, candidates=2, features=False, group=name).leaderboard for name in ("group", None)
    )
    assert by_group["rmse"][1] > 3 * at_random["rmse"][1]  # the planted leak: the same group on both sides


@pytest.mark.parametrize("kind", ["class", "text", "number", "threshold"])
def test_a_copy_of_the_target_is_named(kind: str) -> None:
    frame = classes() if kind != "number" else numbers()
    target = "y" if kind != "number" else "price"
    if kind == "class":
        frame["copy"] = frame["y"]
    elif kind == "text":
        frame["copy"] = frame["y"].map({"high": "was accepted", "low": "was refused"})
    elif kind == "number":
        frame["copy"] = 3 * frame["price"] + 1
    else:
        frame["copy"] = np.where(frame["y"] == "high", 5, 1) + np.random.default_rng(0).random(len(frame))
    (note,) = find_problem(frame, target).notes
    assert note.startswith("column 'copy' predicts the target perfectly")
    assert find_problem(frame, target, types={"copy": "ignore"}).notes == []


def test_an_id_is_not_learned_from() -> None:
    frame = classes()
    frame["customer_id"] = np.random.default_rng(0).permutation(len(frame)) + 17
    frame["key"] = [f"k{i:05d}" for i in np.random.default_rng(1).permutation(len(frame))]
    frame = frame.sort_values("y", ignore_index=True)
    frame["number"] = np.arange(len(frame))  # sorted by the target: it would predict perfectly
    kinds = {column.name: column.kind for column in find_columns(frame.drop(columns="y"), {})}
    assert {name for name, kind in kinds.items() if kind == "id"} == {"customer_id", "key", "number"}
    assert set(find_problem(frame, "y").frame.columns) == {"a", "b", "c", "city", "member", "day"}
