"""Words of Stable-Baselines3 and CleanRL: messages name our option, on the command line and in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from automl_ext import rl
from automl_ext.rl.envs.options import EnvOptions
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.run_options import RunOptions
from automl_ext.training.errors import UserError
from automl_ext.training.words import OURS, hint

Command = Callable[..., tuple[int, str, str]]


def test_the_table_names_options_that_agents_have_and_none_that_they_have_themselves() -> None:
    forms = [RunOptions, EnvOptions, *(algorithm(name).config for name in ALGORITHMS)]
    options = {field.name for form in forms for field in dataclasses.fields(form)} - {"env"}  # a group of options
    assert set(OURS.values()) <= options
    assert not OURS.keys() & options


@pytest.mark.parametrize(
    ("name", "flag", "ours"),
    [
        ("train a2c", "--learning-rate", "--lr"),
        ("train dqn", "--learning_rate=0.1", "--lr"),
        ("train ppo", "--num-envs", "--n-envs"),
        ("train dqn", "--total-timesteps", "--total-steps"),
        ("train ppo", "--env", "--env-id"),
        ("train ppo", "--env-kwargs", "--env-kwarg"),
        ("tune train ppo", "--learning-rate", "--lr"),
        ("search gdas", "--exp-name", "--out"),
    ],
)
def test_a_flag_of_another_package_is_answered_with_ours(
    name: str, flag: str, ours: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = command(*name.split(), flag, "1")
    assert (code, error) == (2, f"error: {flag.partition('=')[0]}: unknown option; did you mean {ours}?\n")


def test_a_file_of_options_is_answered_with_ours(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("learning_rate = 0.1\n")
    code, _, error = command("train", "ppo", "--config", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert code == 2
    assert "unknown key 'learning_rate'; did you mean lr?; valid ones are" in error


def test_calls_of_another_package_are_answered_with_ours() -> None:
    with pytest.raises(UserError, match=r"make\('ppo'\): unknown key 'learning_rate'; did you mean lr\?"):
        rl.make("ppo", "CartPole-v1", learning_rate=1e-3)
    with pytest.raises(UserError, match="unknown key 'total_step'; did you mean total_steps"):
        rl.make("ppo", "CartPole-v1", total_step=1)
    agent: Any = rl.make("dqn", "CartPole-v1", buffer_size=100)
    try:
        with pytest.raises(TypeError, match=r"learn: .* \'total_timesteps\'; did you mean total_steps\?"):
            agent.learn(total_timesteps=100)
        with pytest.raises(TypeError, match="unexpected keyword argument 'progress_bar'"):  # nothing of that kind here
            agent.learn(progress_bar=True)
    finally:
        agent.close()


@pytest.mark.parametrize("name", ["PPO", "DQN", "A2C", "A3C"])
def test_a_constructor_of_another_package_is_answered_with_ours(name: str) -> None:
    make: Any = getattr(rl, name)
    env = gymnasium.make("CartPole-v1")
    call = rf"{name}: expected a configuration, got 'MlpPolicy'; use rl\.make\('{name.lower()}', env, lr=0\.001\)"
    with pytest.raises(TypeError, match=call):
        make("MlpPolicy", env, learning_rate=1e-3, verbose=1)
    with pytest.raises(TypeError, match=call):
        make(policy="MlpPolicy", env=env, learning_rate=1e-3)


def test_no_name_is_meant() -> None:
    assert hint("learning_rate", ["gamma"]) == ""
    assert hint("learning_rate", ["learning_rate", "lr"]) == "; did you mean learning_rate?"
