"""Several tasks in one vector environment."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from policy_worlds import Bandit, World

from automl_ext.rl import A2C, A2CConfig, EnvOptions, load, make_envs
from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.loop.loop import train
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import own_names


class Small(World):
    """Two states; the reward is 1000 if the action differs from the state."""

    states, actions = 2, 3

    def first(self) -> int:
        return int(self.np_random.integers(2))

    def move(self, action: int) -> tuple[float, bool, bool]:
        return 1000.0 * (action != self.state), True, False


def test_observations_are_padded_and_name_their_task() -> None:
    envs = make_envs(f"{env_id_of(Bandit)},{env_id_of(Small)}", 2, 0)
    assert (envs.n_envs, envs.observations.shape, envs.observations.dtype) == (4, (4, 5), np.float32)
    np.testing.assert_array_equal(envs.observations[:, 3:], np.eye(2)[[0, 1, 0, 1]])
    assert not envs.observations[1::2, 2].any()
    step = envs.step(np.zeros(4, int))
    np.testing.assert_array_equal(step.rewards[1::2], 1000 * step.observations[1::2, 1])
    np.testing.assert_array_equal(step.next_observations[:, 3:], np.eye(2)[[0, 1, 0, 1]])


def test_an_agent_refuses_its_tasks_in_another_order(tmp_path: Path) -> None:
    tasks = [env_id_of(Bandit), env_id_of(Small)]
    saved = A2C(A2CConfig(env_id=",".join(tasks), hidden=(8,), n_envs=2)).save(tmp_path / "agent.pt")
    load(saved, ",".join(tasks)).evaluate(2)
    with pytest.raises(UserError, match="expected the spaces of the agent"):
        load(saved, ",".join(reversed(tasks))).evaluate(2)


def test_images_get_one_channel_per_task() -> None:
    pytest.importorskip("minatar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # v0 is not the newest version
        envs = make_envs("MinAtar/Breakout-v0,MinAtar/SpaceInvaders-v0", 1, 0)
    images = envs.observations
    assert (images.shape, images.dtype) == ((2, 10, 10, 6 + 2), bool)
    assert images[0, :, :, 6].all()
    assert not images[0, :, :, [4, 5, 7]].any()
    assert envs.observation_space.groups(images).tolist() == [0, 1]


def test_wrong_sets_of_tasks_are_refused() -> None:
    bandit = env_id_of(Bandit)
    for tasks, message in [
        (f"{bandit},{bandit}", "different tasks"),
        (f"{bandit},CartPole-v1", "one action space"),
        ("ALE/Pong-v5,CartPole-v1", "single environments"),
        (f"{bandit},NoSuch-v0", "NoSuch"),
        (f"{bandit},", "env_id: expected ids separated by commas"),
    ]:
        with pytest.raises(UserError, match=message):
            make_envs(tasks, 1, 0)
    with pytest.raises(UserError, match="central_critic"):
        make_envs(f"{bandit},CartPole-v1", 1, 0, EnvOptions(central_critic=True))
    assert list(own_names({"env_id": "a:X-v0, b:Y-v0"})) == ["a:X-v0", "b:Y-v0"]


def test_each_task_is_evaluated_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    gymnasium.register("short", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=30)
    sizes = {"total_steps": 600, "eval_every": 200, "eval_episodes": 2, "final_episodes": 2, "checkpoint_every": 200}
    config = A2CConfig("CartPole-v1,short", **sizes, n_envs=2, separate="heads", popart=True, hidden=(8,))
    result = train(A2C, config, tmp_path / "whole")
    assert result is not None
    assert result["eval_return_mean"] == (result["eval_return/CartPole-v1"] + result["eval_return/short"]) / 2
    assert result["eval_return/short"] <= 30
    assert train(A2C, config, tmp_path / "halted", stop_after=300) is None
    train(A2C, config, tmp_path / "halted", resume="auto")
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "halted")]
    assert logs[0] == logs[1]
    assert "eval_return/short" in logs[0]
