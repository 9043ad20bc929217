"""Tasks of dm_control's suite as environments."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import make_envs
from automl_ext.training.errors import UserError


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "automl_ext\[dmc\]"'):
        make_envs("dmc/cartpole-swingup", 1, 0)


def test_episodes_depend_on_the_seed_and_are_truncated() -> None:
    pytest.importorskip("dm_control")
    envs = [make_envs("dmc/cartpole-swingup", 2, seed, EnvOptions(action_repeat=2)) for seed in (0, 0, 1)]
    assert envs[0].observation_space.shape == (5,)
    assert np.array_equal(envs[0].observations, envs[1].observations)
    assert not np.array_equal(envs[0].observations, envs[2].observations)
    one = envs[0]
    assert not np.array_equal(*one.observations)
    for _ in range(500):
        step = one.step(np.ones((2, 1), np.float32))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert [episode.length for episode in one.episodes] == [500, 500]
    assert one.observations.dtype == np.float32
    for each in envs:
        each.close()


@pytest.mark.parametrize(("name", "text"), [("cartpole-nothing", "not"), ("cartpole", "expected dmc/DOMAIN-TASK")])
def test_unknown_tasks_are_refused(name: str, text: str) -> None:
    pytest.importorskip("dm_control")
    with pytest.raises(UserError, match=text):
        make_envs(f"dmc/{name}", 1, 0)
