"""Steps of a run: what is logged and saved, and when the run stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_helpers import logged, make

from automl_ext.training.epochs import Steps
from automl_ext.training.files import checkpoint


def saved(folder: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.list_steps(folder / "checkpoints")]


def test_steps_are_logged_and_saved_until_the_run_stops(tmp_path: Path) -> None:
    state: dict[str, Any] = {"n": 0}
    with make(tmp_path) as run, Steps(run, 9, "work", 5, lambda: state) as steps:
        steps.add({"x": 0.5}, {"x": 0.25})
        assert (steps.step, steps.stopped, saved(tmp_path)) == (2, False, [2])
        steps.add({"x": 0.1}, size=3)
        assert (steps.step, steps.stopped) == (5, True)
        assert saved(tmp_path) == [2, 5]
        steps.save()  # nothing new
    assert logged(tmp_path) == [1, 2, 5]


def test_a_resumed_run_logs_only_what_is_new(tmp_path: Path) -> None:
    with make(tmp_path) as run, Steps(run, 9, "work", None, dict) as steps:
        steps.add({"x": 0.5}, {"x": 0.25})
    with make(tmp_path, resume="auto") as run, Steps(run, 9, "work", 1, dict, start=0) as steps:
        for x in (0.5, 0.25):
            steps.add({"x": x})  # as before
            assert not steps.stopped
        assert logged(tmp_path) == [1, 2]
        steps.add({"x": 0.1})
        assert steps.stopped
    assert logged(tmp_path) == [1, 2, 3]
    assert saved(tmp_path) == [2, 3]


def test_checkpoints_are_some_seconds_apart(tmp_path: Path) -> None:
    with make(tmp_path) as run, Steps(run, 9, "work", None, dict, every=1000.0) as steps:
        for _ in range(3):
            steps.add({"x": 0.5})
        assert saved(tmp_path) == []
        steps.save()
        assert saved(tmp_path) == [3]


def test_a_run_stops_after_at_least_one_step(tmp_path: Path) -> None:
    with make(tmp_path) as run, pytest.raises(ValueError, match="stop_after: expected at least 1, got 0"):
        Steps(run, 9, "work", 0, dict)
