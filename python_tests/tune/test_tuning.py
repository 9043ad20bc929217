"""The loop of tuning: what it finds, what it does with failures, and that it is resumed exactly."""

from __future__ import annotations

import errno
import functools
import json
import logging
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import matplotlib.pyplot as plt
import optuna
import pytest

from automl_ext.training.errors import UserError
from automl_ext.tune import Categories, Range, TuneConfig, report, tune
from automl_ext.tune.pictures import darken_early_trials, label_logarithmic_axes
from automl_ext.tune.reporting import Pruned, Reports, reporting
from automl_ext.tune.space import distributions, nearest, rounded

SPACE = {"x": Range(0.0, 1.0), "n": Range(1, 100, log=True), "kind": Categories("a", "b", None)}
FIRST = [{"x": 2.0, "n": 50, "kind": "a"}]  # outside of the space


def value_of(point: dict[str, Any]) -> float:
    return -((point["x"] - 0.3) ** 2) - abs(point["n"] - 7) / 100 - 0.1 * (point["kind"] == "b")


def parabola(point: dict[str, Any], out: Path) -> float:
    for step in range(1, 10):
        report(step, value_of(point) * 10 / step)
    return value_of(point)


def raise_once(error: BaseException, out: Path, reported: float | None = None) -> None:
    """Report a value and raise an exception in the first call of a run that comes here."""
    mark = out.parent.parent.parent / f"{out.parent.parent.name}-interrupted"
    if not mark.exists():
        mark.touch()
        if reported is not None:
            report(1, reported)
        raise error


def interrupted(at: int, point: dict[str, Any], out: Path) -> float:
    """Raise KeyboardInterrupt in trial ``at``, once."""
    if int(out.name) == at:
        raise_once(KeyboardInterrupt(), out, value_of(point))
    return parabola(point, out)


def failing(point: dict[str, Any], out: Path) -> float:
    if out.name == "0001":
        raise MemoryError("no memory")
    if out.name == "0002":
        return math.nan
    if out.name == "0003":
        raise RuntimeError("broken")
    return value_of(point)


def trials_of(result: dict[str, Any] | None) -> list[dict[str, Any]]:
    assert result is not None
    return [{key: trial[key] for key in ("trial", "state", "value", "point")} for trial in result["trials"]]


def test_the_best_trial_is_found_beside_the_given_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # renders the pictures
    result = tune(parabola, SPACE, TuneConfig(trials=25, sampler="tpe"), tmp_path / "run", first=FIRST)
    assert result == json.loads((tmp_path / "run/result.json").read_text())
    assert result["trials"][0]["point"] == FIRST[0]  # as given, not moved into the space
    assert result["first_value"] == value_of(FIRST[0])
    values = [trial["value"] for trial in result["trials"]]
    assert result["best"]["value"] == max(values) > -0.1
    assert result["best"]["value"] == value_of(result["best"]["point"])
    for name in ("history", "importance", "slice"):
        assert (tmp_path / f"run/{name}.png").stat().st_size > 2000


VALUES = {"a": [5.0, 6.0, 7.0], "b": [10.0, 0.0, 2.0], "c": [4.0, 4.0, 4.0], None: [1.0, 99.0, 99.0]}  # of each seed


def noisy(point: dict[str, Any], out: Path) -> float:
    (out / "calls").open("a").write("x")
    if (point["kind"], point.get("seed")) == ("a", 2):
        raise_once(KeyboardInterrupt(), out)
    return VALUES[point["kind"]][point.get("seed", 0)]


def test_a_lucky_seed_does_not_win(tmp_path: Path) -> None:
    config = TuneConfig(trials=4)
    first = [{"x": 0.5, "n": 7, "kind": kind} for kind in VALUES]
    lucky = tune(noisy, SPACE, config, tmp_path / "once", first=first)
    assert lucky is not None
    assert (lucky["best"]["trial"], lucky["best"]["value"]) == (1, 10.0)
    seeds = [{"seed": 1}, {"seed": 2}]
    with pytest.raises(KeyboardInterrupt):
        tune(noisy, SPACE, config, tmp_path / "run", first=first, confirm=seeds)
    result = tune(noisy, SPACE, config, tmp_path / "run", first=first, confirm=seeds, resume="auto")
    assert result is not None
    assert result["best"] == {"trial": 0, "value": 6.0, "point": first[0]}
    kinds = list(VALUES)
    assert result["confirmed"] == [{"trial": i, "values": VALUES[kinds[i]]} for i in (1, 0, 2)]  # not the fourth
    assert result["trials"] == [row | {"seconds": ANY} for row in lucky["trials"]]
    calls = {path.parent.name: path.read_text() for path in (tmp_path / "run/confirm").glob("*/calls")}
    assert calls == {"0101": "x", "0102": "x", "0001": "x", "0002": "xx", "0201": "x", "0202": "x"}


@pytest.mark.parametrize("minimize", [False, True])
def test_the_given_settings_win_against_luck(minimize: bool, tmp_path: Path) -> None:
    """Trial 0 is the fourth by its first seed, and the best by the mean, which is that of a score or of a loss."""
    first = [{"x": 0.5, "n": n, "kind": kind} for kind, n in (("a", 1), ("b", 2), ("b", 3), ("b", 4), ("c", 5))]
    objective, config = (loss, TuneConfig(trials=5, minimize=True)) if minimize else (steady, TuneConfig(trials=5))
    result = tune(objective, SPACE, config, tmp_path / "run", first=first, confirm=[{"seed": 1}])
    assert result is not None
    assert [row["trial"] for row in result["confirmed"]] == [1, 2, 3, 0]
    assert result["best"] == {"trial": 0, "value": -5.5 if minimize else 5.5, "point": first[0]}


def test_other_repetitions_are_not_those_of_an_earlier_call(tmp_path: Path) -> None:
    first = [{"x": 0.5, "n": 1, "kind": "a"}, {"x": 0.5, "n": 2, "kind": "b"}]
    for seed in (1, 2, 2):
        result = tune(
            steady, SPACE, TuneConfig(trials=2), tmp_path / "run", first=first, confirm=[{"seed": seed}], resume="auto"
        )
        assert result is not None
        assert [row["values"] for row in result["confirmed"]] == [[VALUES[k][0], VALUES[k][seed]] for k in "ba"]


def steady(point: dict[str, Any], out: Path) -> float:
    return VALUES[point["kind"]][point.get("seed", 0)]


def loss(point: dict[str, Any], out: Path) -> float:
    return -steady(point, out)


def test_the_budget_in_time_holds_the_repetitions(tmp_path: Path) -> None:
    config, seeds = TuneConfig(minutes=0.03), [{"seed": 1}, {"seed": 2}]
    result = tune(slow, SPACE, config, tmp_path / "run", first=FIRST, confirm=seeds)
    assert result is not None
    again = [row["trial"] for row in result["confirmed"]]
    assert 0 in again
    assert len(again) == 3 + (again.index(0) == 3)  # trial 0 is one of the best three, or beside them
    assert len(result["trials"]) <= 11  # of 1.8 s, 8 repetitions take 0.8 s; one trial may end later


def test_a_budget_of_a_few_trials_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After trial k, k + 1 trials are repeated at most; nothing is reserved for the others."""
    clock, later = time.monotonic, [0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + later[0])

    def minute(point: dict[str, Any], out: Path) -> float:
        later[0] += 60
        return value_of(point)

    seeds = [{"seed": 1}, {"seed": 2}]
    result = tune(minute, SPACE, TuneConfig(minutes=8.5), tmp_path / "run", first=FIRST, confirm=seeds)
    assert result is not None
    assert len(result["trials"]) == len(result["confirmed"]) == 3
    assert later[0] == 9 * 60
    with pytest.warns(UserWarning, match="minutes: 4 have no room for a second trial and 2 repetitions of both"):
        result = tune(minute, SPACE, TuneConfig(minutes=4), tmp_path / "little", first=FIRST, confirm=seeds)
    assert len(trials_of(result)) == 1


def slow(point: dict[str, Any], out: Path) -> float:
    time.sleep(0.1)
    return value_of(point)


def test_the_first_trials_are_visible_in_the_slices() -> None:
    picture, axes = plt.subplots()
    points = axes.scatter([1, 2], [1, 2], c=[0, 9], cmap="Blues")  # as Optuna draws them
    picture.colorbar(points)
    darken_early_trials(picture)
    assert max(points.to_rgba(0)[:2]) < 0.8  # on white; Optuna's is 0.97
    assert max(points.to_rgba(9)[:2]) < 0.4
    plt.close(picture)


@pytest.mark.parametrize(("scale", "high", "changed"), [("log", 99, True), ("log", 101, False), ("linear", 99, False)])
def test_few_numbers_on_a_narrow_logarithmic_axis(scale: str, high: float, changed: bool) -> None:
    picture, axes = plt.subplots()
    axes.set(xscale=scale, xlim=(1, high))
    before = axes.xaxis.get_major_locator()
    label_logarithmic_axes(picture)
    assert (axes.xaxis.get_major_locator() is not before) == changed
    if changed:
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels[labels.index("1") :][:3] == ["1", "3", "10"]
    plt.close(picture)


def full(point: dict[str, Any], out: Path) -> float:
    if out.name == "0001":
        raise_once(OSError(errno.ENOSPC, "No space left on device"), out)
    return value_of(point)


def test_optuna_logs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)  # its default
    logged: list[logging.LogRecord] = []
    for storage in ("_in_memory", "journal._storage"):
        monkeypatch.setattr(logging.getLogger(f"optuna.storages.{storage}"), "handle", logged.append)
    tune(parabola, SPACE, TuneConfig(trials=1), tmp_path / "run", first=FIRST)
    assert logged == []


def test_a_full_disk_ends_tuning_and_fails_no_trial(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        tune(full, SPACE, TuneConfig(trials=3, minimize=True), tmp_path / "run", first=[FIRST[0]])
    result = tune(full, SPACE, TuneConfig(trials=3, minimize=True), tmp_path / "run", first=[FIRST[0]], resume="auto")
    assert [trial["state"] for trial in trials_of(result)] == ["finished"] * 3


def infinite(point: dict[str, Any], out: Path) -> float:
    if out.name == "0000":
        raise_once(KeyboardInterrupt(), out)
        assert point["x"] == math.inf
    return 1.0


def test_an_infinite_setting_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # renders the pictures
    first = [{"x": math.inf, "n": 3, "kind": "a"}]
    with pytest.raises(KeyboardInterrupt):
        tune(infinite, SPACE, TuneConfig(trials=2), tmp_path / "run", first=first)
    result = tune(infinite, SPACE, TuneConfig(trials=2), tmp_path / "run", first=first, resume="auto")
    assert result is not None
    assert result["first_value"] == 1.0


def test_minimize(tmp_path: Path) -> None:
    config = TuneConfig(trials=5, sampler="random", minimize=True)
    result = tune(parabola, SPACE, config, tmp_path / "run", first=FIRST)
    assert result is not None
    assert result["best"]["trial"] == 0  # x = 2 is the worst of a maximum
    assert result["maximize"] is False


def test_failed_trials_are_counted_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # renders the pictures
    result = tune(failing, SPACE, TuneConfig(trials=6, sampler="tpe"), tmp_path / "run", first=FIRST)
    assert result is not None
    states = [trial["state"] for trial in result["trials"]]
    assert states == ["finished"] + ["failed"] * 3 + ["finished"] * 2
    errors = [trial.get("error") for trial in result["trials"]]
    assert errors[1:4] == ["not enough memory: no memory", "the objective is nan", "RuntimeError: broken"]
    assert "test_tuning.py" in (tmp_path / "run/trials/0003.error.txt").read_text()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "run/study.log"))
    )
    study = optuna.load_study(study_name="tune", storage=storage)
    assert [trial.value for trial in study.trials][1:4] == [-math.inf] * 3


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "gp"])
def test_an_interrupted_run_is_resumed_exactly(tmp_path: Path, sampler: Any) -> None:
    config = TuneConfig(trials=13, sampler=sampler, pruner="hyperband")
    whole = tune(parabola, SPACE, config, tmp_path / "whole", first=FIRST)
    objective = functools.partial(interrupted, 11)
    with pytest.raises(KeyboardInterrupt):
        tune(objective, SPACE, config, tmp_path / "parts", first=FIRST)
    parts = tune(objective, SPACE, config, tmp_path / "parts", first=FIRST, resume="auto")
    assert trials_of(parts) == trials_of(whole)
    log = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts")]
    assert log[0] == log[1]


@pytest.mark.slow
def test_a_finished_run_can_have_a_larger_budget_and_no_other_settings(tmp_path: Path) -> None:
    first = tune(parabola, SPACE, TuneConfig(trials=3), tmp_path / "run", first=FIRST)
    assert (
        tune(parabola, SPACE, TuneConfig(trials=6), tmp_path / "run", first=FIRST, resume="auto", stop_after=1) is None
    )
    more = tune(parabola, SPACE, TuneConfig(trials=6), tmp_path / "run", first=FIRST, resume="auto")
    assert trials_of(more)[:3] == trials_of(first)
    assert len(trials_of(more)) == 6
    with pytest.raises(UserError, match="seed"):
        tune(parabola, SPACE, TuneConfig(trials=6, seed=1), tmp_path / "run", first=FIRST, resume="auto")


def test_no_trial_starts_after_the_budget_in_time(tmp_path: Path) -> None:
    result = tune(parabola, SPACE, TuneConfig(minutes=1e-9), tmp_path / "run", first=FIRST)
    assert len(trials_of(result)) == 1


def test_hyperband_ends_bad_trials_early_and_never_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # renders the pictures
    config = TuneConfig(trials=20, sampler="random", pruner="hyperband")
    result = tune(parabola, SPACE, config, tmp_path / "run", first=[{"x": 0.3, "n": 7, "kind": "a"}])
    assert result is not None
    states = [trial["state"] for trial in result["trials"]]
    assert states[0] == "finished"
    assert states.count("pruned") >= 5
    for number, state in enumerate(states):
        reports = json.loads((tmp_path / f"run/trials/{number:04d}.json").read_text())["outcome"]["reports"]
        assert (len(reports) < 9) == (state == "pruned")


@pytest.mark.slow
def test_runs_with_one_storage_learn_from_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    config = TuneConfig(trials=4, storage=url)
    for name in ("one", "two"):
        tune(parabola, SPACE, config, tmp_path / name, first=FIRST, name="shared")
    tune(parabola, SPACE, config, tmp_path / "two", first=FIRST, name="shared", resume="auto")  # adds nothing
    trials = optuna.load_study(study_name="shared", storage=url).trials
    assert [trial.user_attrs["trial"] for trial in trials] == [0, 1, 2, 3] * 2
    assert len({trial.user_attrs["tuner"] for trial in trials}) == 2
    from automl_ext.tune.study import Study

    (tmp_path / "three").mkdir()
    study = Study("shared", config, SPACE, FIRST, tmp_path / "three")
    study.propose(0)
    assert len(study.memory.trials) == 8 + 1
    with pytest.raises(UserError, match="minimize"):
        tune(parabola, SPACE, TuneConfig(trials=1, storage=url, minimize=True), tmp_path / "four", name="shared")


@pytest.mark.parametrize(
    ("config", "space", "first", "error"),
    [
        ({"trials": None}, SPACE, [], "trials, minutes"),
        ({}, {}, [], "space: expected at least one name"),
        ({}, {"lr": (0, 1)}, [], r"space: 'lr': expected Range or Categories, got \(0, 1\)"),
        ({"workers": 2}, SPACE, [], "can be pickled"),
        ({"storage": "nonsense"}, SPACE, [], "storage: cannot use nonsense"),
        ({}, SPACE, [{"lrr": 0.1}], "first: expected points with the names x, n, kind, got {'lrr': 0.1}"),
        ({}, SPACE, [{}], "first: expected points with the names x, n, kind"),
        ({"sampler": "experience"}, SPACE, [], "first: expected at least one point with the sampler experience"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_no_directory(
    tmp_path: Path, config: dict[str, Any], space: dict[str, Any], first: list[dict[str, Any]], error: str
) -> None:
    with pytest.raises(UserError, match=error):
        tune(lambda point, out: 1.0, space, TuneConfig(**{"trials": 1, **config}), tmp_path / "run", first=first)
    assert not (tmp_path / "run").exists()


def always_failing(point: dict[str, Any], out: Path) -> float:
    raise UserError("no such environment")


def test_tuning_ends_if_the_first_trials_fail(tmp_path: Path) -> None:
    for resume in (None, "auto"):
        with pytest.raises(UserError, match=r"first 3 trials failed.*no such environment"):
            tune(always_failing, SPACE, TuneConfig(trials=9), tmp_path / "run", resume=resume)
    assert len(list((tmp_path / "run/trials").glob("*.json"))) == 3


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"point": {}, "params": {}, "elapsed": 0}',
        '{"point": {}, "params": {"x": 9, "n": 1, "kind": "a"}, "elapsed": 0}',
    ],
)
def test_a_damaged_file_of_a_trial_is_named(tmp_path: Path, text: str) -> None:
    tune(parabola, SPACE, TuneConfig(trials=2), tmp_path / "run", first=FIRST)
    (tmp_path / "run/trials/0001.json").write_text(text)
    with pytest.raises(UserError, match=r"0001\.json|trial 1"):
        tune(parabola, SPACE, TuneConfig(trials=2), tmp_path / "run", first=FIRST, resume="auto")


def test_points_are_moved_into_the_space_and_rounded() -> None:
    assert nearest(SPACE, {"x": 2, "n": 0, "kind": None}) == {"x": 1.0, "n": 1, "kind": None}
    assert nearest(SPACE, {"x": math.nan, "n": "?", "kind": "z"}) == {"x": 0.0, "n": 1, "kind": "a"}
    space = {"x": Range(0.123456, 0.9), "n": Range(1, 9)}
    assert rounded(space, {"x": 0.12346, "n": 5}) == {"x": 0.1235, "n": 5}
    assert rounded(space, {"x": 0.12341, "n": 5}) == {"x": 0.123456, "n": 5}  # not below the range
    assert rounded(space, {"x": 0.55555555, "n": 5}) == {"x": 0.5556, "n": 5}
    assert distributions(SPACE)["n"] == optuna.distributions.IntDistribution(1, 100, log=True)


def test_reports_of_earlier_steps_are_ignored_and_a_trial_is_ended() -> None:
    report(1, 2.0)  # outside of a trial: nothing
    reports = Reports(lambda step, value: value < 0)
    with reporting(reports):
        for step, value in ((1, 2.0), (2, 1.0), (1, -5.0)):
            report(step, value)
        with pytest.raises(Pruned):
            report(3, -1.0)
    assert reports.values == [(1, 2.0), (2, 1.0), (3, -1.0)]


def dying(point: dict[str, Any], out: Path) -> float:
    if out.name == "0001":
        os.kill(os.getpid(), signal.SIGKILL)
    return value_of(point)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:trial")
@pytest.mark.parametrize("failing", [set(), {0}, {1, 2}])
def test_without_a_finished_trial_the_numbers_are_named(failing: set[int], tmp_path: Path) -> None:
    def objective(point: dict[str, Any], folder: Path) -> float:
        if int(folder.name) in failing:
            raise ValueError("no such environment")
        raise Pruned

    why = ": no such environment" if failing else ""
    message = f"no trial finished, {4 - len(failing)} were pruned and {len(failing)} failed{why}; choose"
    for resume in (None, "auto"):
        with pytest.raises(UserError, match=message):
            tune(objective, SPACE, TuneConfig(trials=4, sampler="random"), tmp_path / "run", resume=resume)


def test_a_trial_whose_process_is_killed_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork = multiprocessing.get_context("fork")  # a start with spawn imports torch
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)
    result = tune(dying, SPACE, TuneConfig(trials=4, workers=2), tmp_path / "run", first=FIRST)
    assert result is not None
    assert [trial["state"] for trial in result["trials"]] == ["finished", "failed", "finished", "finished"]
    assert "was killed 3 times" in result["trials"][1]["error"]


def slow_or_dying(point: dict[str, Any], out: Path) -> float:
    if out.name == "0001":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    return value_of(point)


def test_a_trial_does_not_fail_because_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial 1 kills the processes while trial 0 is the oldest."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)
    result = tune(slow_or_dying, SPACE, TuneConfig(trials=2, workers=2), tmp_path / "run", first=FIRST)
    assert result is not None
    assert [trial["state"] for trial in result["trials"]] == ["finished", "failed"]
