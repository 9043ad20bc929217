"""The tables of algorithms and of environment wrappers, and the public names of automl_ext.rl."""

from __future__ import annotations

import itertools
import pkgutil

import gymnasium
import pytest

import automl_ext.rl
from automl_ext.rl.envs import making
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.train_config import TrainConfig
from automl_ext.rl.presets import PRESETS, preset
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext_cli.table import COMMANDS


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_a_configuration_and_an_agent(name: str) -> None:
    found = algorithm(name)
    assert issubclass(found.config, TrainConfig)
    assert issubclass(found.agent, Agent)
    found.config()  # the defaults are valid


def test_the_algorithms_are_those_of_the_table_of_commands() -> None:
    commands = {name.split()[-1]: c for name, c in COMMANDS.items() if c.kind == "agent"}
    assert {name: (c.options, c.run) for name, c in commands.items()} == ALGORITHMS


def test_presets_differ_from_the_defaults_and_from_each_other() -> None:
    configs = [algorithm(name).config for name in ALGORITHMS]
    assert PRESETS.keys() <= {config.__name__ for config in configs}
    for config in configs:
        named = [preset(name, config()) for name in PRESETS.get(config.__name__, ())]
        assert not any(one == other for one, other in itertools.combinations([config(), *named], 2))


def test_an_agent_without_memory_and_updates_needs_no_members_for_them() -> None:
    class Minimal(Agent):
        def iterate(self):
            return {}

        def act(self, observations):
            return observations

        policy_state = state_dict = iterate
        load_policy_state = load_state_dict = act

    agent = Minimal()
    assert agent.updates is None
    assert agent.begin(None) is None
    with pytest.raises(TypeError, match="abstract"):
        Agent()


def test_every_wrapper_is_an_option_and_one_line_adds_a_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in making.WRAPPERS:
        assert hasattr(making.EnvOptions, name)
    assert making.active_wrappers(making.EnvOptions()) == []
    assert making.active_wrappers(making.EnvOptions(frame_stack=2, action_repeat=3)) == ["action_repeat", "frame_stack"]

    class Offset(gymnasium.ObservationWrapper):
        def __init__(self, env: gymnasium.Env, offset: int) -> None:
            super().__init__(env)
            self.offset = offset

        def observation(self, observation):
            return observation + observation.dtype.type(self.offset)

    monkeypatch.setattr(making.EnvOptions, "offset", 0, raising=False)
    monkeypatch.setitem(making.WRAPPERS, "offset", Offset)
    options = making.EnvOptions()
    plain = automl_ext.rl.make_envs("CartPole-v1", 2, 0, making.EnvOptions("sync")).observations
    options.offset = 5  # type: ignore[attr-defined]
    assert automl_ext.rl.make_envs("CartPole-v1", 2, 0, options).observations == pytest.approx(plain + 5)


def test_public_names_exist_and_hide_no_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(automl_ext.rl.__path__)}
    assert not modules & set(automl_ext.rl.__all__)
    for name in automl_ext.rl.__all__:
        assert getattr(automl_ext.rl, name) is not None
