"""Families of features compute what they say, and the rule keeps those that gain."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tables import numbers

from automl_ext.tabular.candidates import DEFAULTS
from automl_ext.tabular.features.choice import corrected_error, judge_families
from automl_ext.tabular.features.families import FAMILIES, SMOOTHING, Rows
from automl_ext.tabular.features.preparation import MOST_CATEGORIES, Preparation, prepare
from automl_ext.tabular.fit import fit
from automl_ext.tabular.learners.registry import LEARNERS
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.columns import Column
from automl_ext.tabular.table.problem import find_problem

NEVER = float("inf")
FRAME = pd.DataFrame({"c": ["x", "x", "y", None], "a": [1.0, 3.0, 5.0, np.nan], "b": [2.0, 0.0, 4.0, 1.0]})
COLUMNS = [Column("c", "categorical", ""), Column("a", "numeric", ""), Column("b", "numeric", "")]
ROWS = Rows(FRAME, COLUMNS, np.array([[1.0], [0.0], [1.0], [1.0]]), 0)


def features(family: str, frame: pd.DataFrame = FRAME) -> dict[str, list[float]]:
    state = json.loads(json.dumps(FAMILIES[family].fit(ROWS)))  # as it comes from a file
    return {name: values.tolist() for name, values in FAMILIES[family].apply(frame, state)}


def test_arithmetic() -> None:
    np.testing.assert_equal(
        features("arithmetic"),
        {
            "a - b": [-1, 3, 1, np.nan],
            "a * b": [2, 0, 20, np.nan],
            "a / b": [0.5, np.nan, 1.25, np.nan],  # no division by zero
        },
    )


def test_frequencies_and_target_means_with_unknown_categories() -> None:
    new = pd.DataFrame({"c": ["x", "z", None]})
    np.testing.assert_allclose(features("frequencies", new)["frequency of c"], np.log1p([2, 0, 0]))
    prior = 0.75
    x = (1 + SMOOTHING * prior) / (2 + SMOOTHING)
    np.testing.assert_allclose(features("target means", new)["target mean 0 of c"], [x, prior, prior])


def test_group_means() -> None:
    found = features("group means", pd.DataFrame({"c": ["x", "z"], "a": [5.0, 5.0], "b": [0.0, 0.0]}))
    assert found["mean a by c"] == [2, 3]  # of category x; of all rows for an unknown one
    assert found["a less its mean by c"] == [3, 2]


def test_dates_parts_are_those_of_datetime() -> None:
    days = pd.to_datetime(["1969-12-31 06:00", "2000-02-29", "2024-12-31 23:30"], format="mixed")
    frame = pd.DataFrame({"d": days.to_numpy(dtype="datetime64[ns]").astype(np.int64) / 86_400e9})
    state = FAMILIES["dates' parts"].fit(Rows(frame, [Column("d", "date", "")], np.zeros((3, 1)), 0))
    found = {name: values for name, values in FAMILIES["dates' parts"].apply(frame, state)}
    for i, day in enumerate(days):
        moment: datetime = day.to_pydatetime()
        assert found["year of d"][i] == moment.year
        assert found["month of d"][i] == moment.month
        assert found["weekday of d"][i] == moment.weekday()
        assert found["day of year of d"][i] == moment.timetuple().tm_yday - 1
        assert found["hour of d"][i] == pytest.approx(moment.hour + moment.minute / 60, abs=1e-3)


def test_unknown_and_rare_categories_count_as_missing() -> None:
    values = [f"c{i}" for i in range(MOST_CATEGORIES) for _ in range(2)] + ["rare"]
    frame = pd.DataFrame({"c": values})
    y = np.arange(len(values)) % 2
    task = find_problem(frame.assign(y=y), "y").task
    preparation, _ = prepare(frame, COLUMNS[:1], y, task)
    codes = preparation.apply(pd.DataFrame({"c": ["c0", "c7", "rare", "new", None]})).x[:, 0]
    assert np.isnan(codes).tolist() == [False, False, True, True, True]


def test_names_are_those_of_the_matrix() -> None:
    problem = find_problem(numbers(), "price")
    columns = [column for column in problem.columns if column.is_used]
    preparation, matrix = prepare(problem.frame, columns, problem.y, problem.task, list(FAMILIES))
    assert preparation.feature_names() == matrix.names
    assert len(set(matrix.names)) == len(matrix.names) == matrix.x.shape[1]
    stored = json.loads(json.dumps(asdict(preparation)))
    read = Preparation(columns, stored["categories"], stored["families"])
    np.testing.assert_array_equal(read.apply(problem.frame).x, preparation.apply(problem.frame).x)


def test_the_corrected_error_is_that_of_the_paper() -> None:
    differences = [0.1, 0.3, 0.2, 0.4, 0.5]  # variance 0.025
    assert corrected_error(differences, 0.25) == pytest.approx((0.025 * (1 / 5 + 1 / 4)) ** 0.5)


def test_a_family_is_kept_if_and_only_if_it_gains() -> None:
    """The classes are the sign of a difference, which trees learn badly; cities have nothing to do with it."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400))
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, 400), unit="D")
    city = rng.choice(["Athens", "Bern", "Cairo"], 400)
    problem = find_problem(pd.DataFrame({"a": a, "b": b, "day": day, "city": city, "y": a > b}), "y")
    search = TableSearch(problem, NEVER, 0, 1)
    trial = search.run(DEFAULTS[1], NEVER)
    assert trial is not None
    verdicts = {verdict.family: verdict for verdict in judge_families(search, trial, NEVER)}
    assert verdicts["arithmetic"].kept
    assert verdicts["arithmetic"].gain > verdicts["arithmetic"].error > 0
    assert not verdicts["frequencies"].kept
    assert verdicts["frequencies"].gain <= verdicts["frequencies"].error
    late = {verdict.family: verdict for verdict in judge_families(search, trial, 0.0)}
    assert {verdict.why for verdict in late.values()} == {"not judged: too little time"}
    without = {verdict.family: verdict for verdict in judge_families(search, None, NEVER)}
    for verdicts in (late, without):
        assert [name for name, verdict in verdicts.items() if verdict.kept] == ["dates' parts"]


def test_families_are_judged_if_the_first_candidate_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise ValueError("broken")

    broken = LEARNERS["xgboost"]._replace(train=fails)
    monkeypatch.setitem(LEARNERS, "xgboost", broken)
    fitted = fit(numbers(), "price", minutes=0.2, candidates=2)
    assert "xgboost default" in fitted.report["failed"]
    assert next(v for v in fitted.report["features"] if v["family"] == "dates' parts")["kept"]


@pytest.mark.parametrize(
    ("gains", "kept"), [((0.2, 0.1), True), ((-0.3, 0.2, 0.1, -0.1, 0.0), True), ((-0.2,) * 5, False)]
)
def test_parts_of_dates_are_kept_unless_they_harm(
    gains: tuple[float, ...], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gains within their error keep them; two folds with a gain suffice."""
    search = TableSearch(find_problem(numbers(), "price"), NEVER, 0, 1)
    trial = search.run(DEFAULTS[1], NEVER)
    assert trial is not None
    rest = list(gains)
    losses = iter(trial.losses)
    monkeypatch.setattr(search, "loss", lambda rows, predicted: next(losses) - rest.pop(0))
    for name in set(FAMILIES) - {"dates' parts"}:
        monkeypatch.delitem(FAMILIES, name)
    (verdict,) = judge_families(search, trial, NEVER)
    assert not rest
    assert verdict.kept == kept
    assert verdict.gain == pytest.approx(np.mean(gains))
