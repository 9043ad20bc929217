"""Resumed runs of Dreamer equal uninterrupted ones."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
from compare_runs import newest, same, same_runs
from dreamer_worlds import TINY, point_on_line

from automl_ext.rl.dreamer import Dreamer
from automl_ext.rl.envs.options import EnvOptions
from automl_ext.rl.loop.loop import train as train_agent

train = functools.partial(train_agent, Dreamer)


@pytest.mark.parametrize(
    ("env_id", "pixels"),
    [("CartPole-v1", False), ("Pendulum-v1", False), pytest.param("CartPole-v1", True, marks=pytest.mark.slow)],
)
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, env_id: str, pixels: bool) -> None:
    """The statistics of normalization are restored too, for vectors and for images."""
    config = dataclasses.replace(TINY, env_id=env_id, n_envs=2, env=EnvOptions(pixels=pixels))
    train(config, tmp_path / "whole")
    parts = tmp_path / "parts"
    assert train(config, parts, stop_after=25) is None  # before anything is learned
    assert train(config, parts, resume="auto", stop_after=41) is None
    result = train(config, parts, resume="auto")
    assert result is not None
    assert result["updates"] == newest(parts)[1]["agent"]["updates"] == 10  # one more at first
    assert result["updates_per_second"] > 0
    same_runs(tmp_path / "whole", parts, {"updates_per_second"})


def test_resume_starts_new_episodes_if_environments_cannot_be_saved(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, env_id=point_on_line(False), train_every=7)
    train(config, tmp_path / "run", stop_after=60)
    before = newest(tmp_path / "run")[1]["agent"]["replay"]
    with pytest.warns(UserWarning, match="its state cannot be saved; new episodes start"):
        train(config, tmp_path / "run", resume="auto", stop_after=4)
    after = newest(tmp_path / "run")[1]["agent"]["replay"]
    assert max(before["lengths"]) <= max(after["lengths"]) == 11
    assert after["lengths"][: len(before["lengths"])] == before["lengths"]
    assert after["lengths"][len(before["lengths"])] == before["going_on"][0]  # cut where the run was


def test_evaluation_does_not_change_training(tmp_path: Path) -> None:
    for name, every in (("one", 120), ("two", 10)):
        train(dataclasses.replace(TINY, eval_every=every), tmp_path / name)
    same(*(newest(tmp_path / name)[1]["agent"] for name in ("one", "two")))
