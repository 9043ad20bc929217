"""The search for models of a table: what TPE learns from, failures of libraries, and importances of saved models."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tables import classes, numbers

from automl_ext.tabular import fit, schedule
from automl_ext.tabular.candidates import DEFAULTS, EARLY_STOPPING, ModelCandidate, Tuner
from automl_ext.tabular.learners.lightgbm import LightGBMSettings
from automl_ext.tabular.learners.linear import LinearSettings
from automl_ext.tabular.learners.registry import LEARNERS
from automl_ext.tabular.learners.xgboost import XGBoostSettings
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.problem import find_problem
from automl_ext.training.errors import UserError

NEVER = float("inf")


@pytest.fixture
def search() -> TableSearch:
    return TableSearch(find_problem(numbers(), "price", folds=3, seed=0), NEVER, 0, 1)


@pytest.mark.parametrize("learner", ["lightgbm", "xgboost"])
def test_tpe_learns_from_the_defaults_and_from_draws_that_were_given_up(learner: str, search: TableSearch) -> None:
    tuner = Tuner(learner, 0)
    (default,) = [candidate for candidate in DEFAULTS if candidate.learner == learner]
    tuner.add(SimpleNamespace(candidate=default, loss=1.0))  # its penalty of 0 is outside the space
    asked, _ = tuner.ask()
    tuner.tell(asked, None, rejected=3.0)
    asked, _ = tuner.ask()
    tuner.tell(asked, 2.0, None)
    asked, _ = tuner.ask()
    tuner.tell(asked, None, None)
    states = [(trial.state.name, trial.value) for trial in tuner._study.trials]
    assert states == [("COMPLETE", 1.0), ("PRUNED", 3.0), ("COMPLETE", 2.0), ("FAIL", None)]


def test_a_draw_that_was_given_up_is_known_with_its_loss(search: TableSearch) -> None:
    candidate = ModelCandidate("weak", "lightgbm", LightGBMSettings(rounds=1, patience=0))
    assert search.run(candidate, NEVER, bar=0.0) is None
    assert search.rejected["weak"] > 0
    assert not search.failed


@pytest.mark.parametrize("rows", [100, 10_000])
@pytest.mark.parametrize("metric", ["auc", "accuracy"])
def test_the_ensemble_is_selected_by_the_metric(metric: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first model is far too sure; the second one makes more errors and would get votes by the log-loss."""
    monkeypatch.setattr("automl_ext.tabular.search.SELECTION_ROWS", rows)
    search = TableSearch(find_problem(classes(), "y", metric=metric), NEVER, 0, 1)
    y, luck = search.y[search.valid_rows], np.random.default_rng(0).random(len(search.y))
    sure, calibrated = (abs(np.where(luck < share, y, 1 - y) - rest) for share, rest in ((0.9, 1e-5), (0.8, 0.2)))
    search.trials = [SimpleNamespace(predicted=np.stack([1 - p, p], axis=1)) for p in (sure, calibrated)]  # type: ignore[misc]
    assert search.select() == [1, 0]


@pytest.mark.parametrize("kind", ["random", "time"])
@pytest.mark.parametrize(("enough", "room", "folds"), [(0, 0, 3), (0, 1e12, 1), (1000, 1e12, 3)])
def test_slow_boosting_decides_on_the_folds_of_large_tables(
    kind: str, enough: int, room: float, folds: int, search: TableSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is not trained again, and its time is that of its trial, not of the first one."""
    monkeypatch.setattr("automl_ext.tabular.search.ENOUGH", enough)
    monkeypatch.setattr("automl_ext.tabular.search.ROOM", room)
    clock, trained, train = [0.0], [], search._train
    monkeypatch.setattr("automl_ext.tabular.search.time", SimpleNamespace(monotonic=lambda: clock[0]))
    search.kind, search.deadline, candidate = kind, 1e9, EARLY_STOPPING

    def slow(given: ModelCandidate, fold: Any, deadline: float) -> Any:
        trained.append(given.name)
        clock[0] += 10 if given.name == candidate.name else 1
        return train(given, fold, deadline)

    monkeypatch.setattr(search, "_train", slow)
    search.plan(DEFAULTS[0], candidate)
    assert len(search.folds) == folds
    assert len(trained) == (0 if enough else 2)
    first, trial = search.run(DEFAULTS[0], NEVER), search.run(candidate, NEVER)
    assert first is not None
    assert trial is not None
    assert first.seconds == folds
    assert trial.seconds == 10 * folds
    assert trained.count(candidate.name) == len(trial.models) == folds
    for fold, model, value in zip(search.folds, trial.models, trial.losses, strict=True):  # each has its own fold
        predicted = model.predict(search.matrices(fold, True)[2].x, trial.rounds)
        assert search.loss(fold.valid, predicted) == value


def test_a_candidate_whose_first_fold_is_slow_is_given_up(search: TableSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not be ready on all folds: the time is left to others."""
    deadlines, train = [], search._train

    def record(given: ModelCandidate, fold: Any, deadline: float) -> Any:
        deadlines.append(deadline)
        return train(given, fold, deadline)

    monkeypatch.setattr(search, "_train", record)
    started = time.monotonic()
    search.run(DEFAULTS[1], started + 300)
    assert deadlines[0] == pytest.approx(started + 100, abs=1)
    assert deadlines[1:] == [started + 300] * 2


def test_a_logistic_regression_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    passes, trained = [], LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda *args, **more: passes.append(1) or trained(*args, **more))
    monkeypatch.setattr("automl_ext.tabular.learners.linear.ITERATIONS", 2)
    search = TableSearch(find_problem(classes(), "y", folds=2), NEVER, 0, 1)
    for deadline, count in ((0.0, 2), (NEVER, 5)):
        passes.clear()
        trial = search.run(ModelCandidate("linear", "linear", LinearSettings(1e-3)), deadline)
        assert trial is not None  # a linear model is never given up
        assert trial.loss < 0.6
        assert min(len(passes), 5) == count


@pytest.mark.parametrize("settings", [LightGBMSettings(patience=5), XGBoostSettings(patience=5)])
def test_a_loaded_model_has_the_same_importances(settings: Any, search: TableSearch, tmp_path: Path) -> None:
    learner = type(settings).__name__.removesuffix("Settings").lower()
    trial = search.run(ModelCandidate(learner, learner, settings), NEVER)
    assert trial is not None
    model, path = trial.models[0], tmp_path / "model"
    path = path.with_suffix(LEARNERS[learner].suffix)
    model.save(path)
    loaded = LEARNERS[learner].load(path, search.task)
    assert loaded.rounds > model.rounds  # training stopped after the best round
    np.testing.assert_allclose(loaded.importance(model.rounds), model.importance(model.rounds), rtol=1e-6)
    assert (loaded.importance(loaded.rounds) != model.importance(model.rounds)).any()


@pytest.mark.parametrize(("room", "judged"), [(0, True), (10**9, False)])
def test_features_are_judged_only_if_many_candidates_fit(
    room: int, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "ROOM", room)
    fitted = fit(numbers(), "price", minutes=5, candidates=2)
    assert any(row["gain"] is not None for row in fitted.report["features"]) == judged
    assert any(row["why"] == "not judged: too little time" for row in fitted.report["features"]) != judged


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "constant"])
def test_the_largest_seed_may_be_given(learner: str) -> None:
    search = TableSearch(find_problem(numbers(60), "price", folds=2), NEVER, 2**32 - 1, 1)
    settings = LEARNERS[learner].settings(**({"trees": 2} if learner == "forest" else {}))
    for name in "ab":
        assert search.run(ModelCandidate(name, learner, settings), NEVER) is not None, search.failed


def failing(*args: Any) -> Any:
    raise ValueError("cannot be trained")


def failing_with_a_trace(*args: Any) -> Any:
    raise ValueError("cannot be trained\nStack trace:\n" + "  [bt] (0) library.so\n" * 20)


def test_a_library_that_refuses_the_table_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, "xgboost", LEARNERS["xgboost"]._replace(train=failing_with_a_trace))
    fitted = fit(numbers(), "price", minutes=5, candidates=7)
    failed = fitted.report["failed"]
    assert set(failed) >= {"xgboost default", "xgboost slow"}
    assert all("cannot be trained" in error and "\n" not in error and len(error) < 300 for error in failed.values())
    assert "lightgbm default" in set(fitted.leaderboard["name"])


def test_a_family_that_cannot_be_judged_is_dropped(monkeypatch: pytest.MonkeyPatch, search: TableSearch) -> None:
    from automl_ext.tabular.features.choice import judge_families

    without = search.run(DEFAULTS[1], NEVER)
    assert without is not None
    monkeypatch.setitem(LEARNERS, "lightgbm", LEARNERS["lightgbm"]._replace(train=failing))
    verdicts = judge_families(search, without, NEVER)
    assert [verdict.family for verdict in verdicts if verdict.kept] == ["dates' parts"]
    assert "not judged: cannot be trained" in {verdict.why for verdict in verdicts}


def test_without_any_model_the_reasons_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("xgboost", "lightgbm", "linear", "forest"):
        monkeypatch.setitem(LEARNERS, name, LEARNERS[name]._replace(train=failing))
    with pytest.raises(UserError, match=r"no model can be trained on the table: .*cannot be trained"):
        fit(numbers(), "price", minutes=5, candidates=3)
