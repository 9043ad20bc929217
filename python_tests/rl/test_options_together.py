"""Options of agents that belong together or exclude each other, found by a review of the merged parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_worlds import Corridor, walks

from automl_ext import cli, rl
from automl_ext.rl.algorithms.a2c import A2C, A2CConfig
from automl_ext.rl.algorithms.bc import BC, BCConfig
from automl_ext.rl.algorithms.cql import CQLConfig
from automl_ext.rl.algorithms.vdn import VDN, VDNConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.training.errors import UserError

SMALL = ["--total-steps", "400", "--eval-every", "200", "--eval-episodes", "1", "--final-episodes", "1"]


def test_offline_agents_learn_from_clipped_rewards() -> None:
    agent: Any = rl.make("cql", Corridor, hidden=(4,))
    agent.config = replace(agent.config, env=replace(agent.config.env, reward_clip=0.25))
    agent.set_episodes(walks(0.5, episodes=20))
    assert agent.replay.sample(500).returns.abs().max() == 0.25


def test_training_does_not_continue_with_other_episodes() -> None:
    first: Any = rl.make("cql", Corridor, hidden=(4,))
    first.set_episodes(walks(0.5, episodes=20))
    first.iterate()
    again: Any = rl.make("cql", Corridor, hidden=(4,))
    again.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="episodes: expected those with which the training began"):
        again.set_episodes(walks(1.0, episodes=20))
    again.set_episodes(walks(0.5, episodes=20))


def test_arguments_reach_the_environments_of_several_tasks() -> None:
    with pytest.raises(Exception, match="nonsense"):
        A2C(A2CConfig("Acrobot-v1,MountainCar-v0", env=EnvOptions(env_kwarg=("nonsense=5",))))


@pytest.mark.parametrize("name", ["separate", "popart"])
def test_options_of_several_tasks_are_refused_where_they_do_nothing(name: str) -> None:
    options: dict[str, Any] = {"separate": "heads"} if name == "separate" else {"popart": True, "layer_norm": True}
    with pytest.raises(UserError, match=name):
        A2C(A2CConfig("CartPole-v1", **options))


def test_configurations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden: expected at least 1 layers of at least 2 units"):
        CQLConfig(hidden=())


def test_a_policy_does_not_see_what_is_for_the_critic() -> None:
    pytest.importorskip("pettingzoo")
    two_step = "pettingzoo/automl_ext.rl.envs.two_step"
    with pytest.raises(UserError, match="central_critic"):
        BC(BCConfig(two_step, env=EnvOptions(central_critic=True)))


def test_a_restored_policy_is_the_target_too() -> None:
    pytest.importorskip("pettingzoo")
    agent = VDN(VDNConfig(hidden=(4,)))
    policy = {name: x + 1 for name, x in agent.policy_state().items()}
    agent.set_policy(policy)
    assert all(torch.equal(x, policy[name]) for name, x in agent.target.state_dict().items())


def test_a_resumed_run_does_not_need_its_initial_policy(tmp_path: Path) -> None:
    start = tmp_path / "start.pt"
    A2C(A2CConfig("CartPole-v1")).save(start)
    given = ["train", "a2c", *SMALL, "--initial-policy.path", str(start), "--out", str(tmp_path / "run")]
    assert cli.main([*given, "--stop-after", "200"]) == 0
    start.unlink()
    assert cli.main([*given, "--resume", "auto"]) == 0


def test_the_number_of_recorded_episodes_is_that_of_each_agent(tmp_path: Path) -> None:
    pytest.importorskip("pettingzoo")
    run, file = tmp_path / "run", tmp_path / "data.npz"
    assert cli.main(["train", "vdn", *SMALL, "--out", str(run)]) == 0
    assert cli.main(["record", str(run), "--episodes", "3", "--out", str(file)]) == 0
    with np.load(file) as data:
        assert any(len(data[name]) == 6 for name in data.files)  # two agents
