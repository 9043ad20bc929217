"""``make``, ``load`` and ``load_run``: agents by name, from a file and from a run directory."""

from __future__ import annotations

import functools
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from rl_worlds import Scripted

from automl_ext import __version__, rl
from automl_ext.rl.envs.vector import NoEnvs
from automl_ext.rl.extras import Extras
from automl_ext.rl.loop.saved import read_agent, space_from_dict, space_to_dict
from automl_ext.rl.presets import PRESETS
from automl_ext.training.errors import UserError
from automl_ext.training.files.weights import read_tensors, write_tensors

SHORT = {"total_steps": 200, "eval_every": 100, "eval_episodes": 2, "final_episodes": 2, "checkpoint_every": 100}
SMALL: dict[str, dict[str, Any]] = {
    "a2c": {"hidden": (8,), "normalize_observations": True, "n_envs": 2},
    "reinforce": {"hidden": (8,), "n_envs": 2},
    "a3c": {"hidden": (8,), "n_envs": 2},
    "ppo": {"hidden": (8,), "normalize_observations": True, "n_envs": 2},
    "dqn": {
        "hidden": (8,),
        "normalize_observations": True,
        "learning_starts": 50,
        "train_freq": 50,
        "gradient_steps": 2,
    },
    "rainbow": {"hidden": (8,), "atoms": 5, "learning_starts": 50, "train_freq": 50, "buffer_size": 500},
    "dreamer": {"prefill": 20, "pretrain": 2, "train_every": 100, "batch_size": 2, "sequence_length": 4}
    | {"deter": 4, "stoch": 3, "hidden": 4, "units": 4, "horizon": 3},
}


def small(name: str, env: Any = "CartPole-v1", **options: Any) -> rl.Agent:
    return rl.make(name, env, **{**SHORT, **SMALL[name], **options})


def observations(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 4))


class World(Scripted):
    """A world made by a class: at most four steps."""

    def __init__(self) -> None:
        super().__init__(0)


def test_options_are_fields_of_the_configuration_and_of_the_environment() -> None:
    agent = rl.make("dqn", "CartPole-v1", lr=1e-3, hidden=(16, 16), reward_clip=1.0, seed=3)
    assert isinstance(agent, rl.DQN)
    changed: dict[str, Any] = {"env": rl.EnvOptions(reward_clip=1.0), "extras": Extras()}
    assert agent.config == rl.DQNConfig(lr=1e-3, hidden=(16, 16), seed=3, **changed)
    assert rl.make("dqn", preset="minatar", env="CartPole-v1", lr=1.0).config.buffer_size == 100_000


def test_options_that_nothing_reads_are_named() -> None:
    message = r"make\('dqn'\): nothing reads sigma without noisy=True, atoms without distributional=True$"
    with pytest.warns(UserWarning, match=message):
        rl.make("dqn", sigma=0.9, atoms=21).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rl.make("dqn", noisy=True, sigma=0.9).close()
        rl.make("rainbow", "CartPole-v1", atoms=21, buffer_size=100).close()


def test_without_an_environment_it_is_that_of_the_preset_or_of_the_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS["PPOConfig"], "pendulum", {"env_id": "Pendulum-v1"})
    assert rl.make("ppo", preset="pendulum", hidden=(8,)).config.env_id == "Pendulum-v1"
    assert rl.make("vdn", hidden=(8,)).config.env_id == rl.VDNConfig().env_id
    assert rl.make("a2c").config.env_id == "CartPole-v1"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("sarsa",), {}, "make: algorithm: expected one of reinforce, .*got 'sarsa'$"),
        (("A2C",), {}, "got 'A2C'; the nearest is a2c"),
        (("a2c",), {"learning_rate": 1}, "make.'a2c'.: unknown key 'learning_rate'; did you mean lr\\?; valid ones"),
        (("a2c",), {"lr": "fast"}, "lr must be float, got 'fast'"),
        (("a2c",), {"total_steps": 1e5}, "total_steps must be int, got 100000.0"),
        (("a2c",), {"lr": -1.0}, "lr: expected above 0, got -1.0"),
        (("a2c", "CartPole-v9"), {}, "CartPole-v9"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        rl.make(*arguments, **options)
    assert "\n" not in str(error.value)


def test_an_environment_may_be_a_class_or_a_function() -> None:
    by_class, by_function = small("a2c", World), small("a2c", lambda: World())
    assert by_class.config.env_id == "callable/World"
    assert by_function.config.env_id.startswith("callable/lambda")
    assert small("a2c", World).config.env_id == by_class.config.env_id
    assert by_class.learn()["env_steps"] >= 200
    assert by_class.evaluate(5).shape == (5,)


def test_an_environment_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="env: expected an environment id"):
        small("a2c", 3)
    one = World()
    with pytest.raises(UserError, match="returned the same environment twice"):
        small("a2c", lambda: one)
    for env, got in ((World, "a callable"), (World(), "an object")):
        with pytest.raises(UserError, match=rf"env: expected an environment id for a3c, .*got {got}"):
            rl.make("a3c", env)


@pytest.mark.parametrize("name", SMALL)
def test_a_loaded_agent_predicts_the_same(name: str, tmp_path: Path) -> None:
    agent = small(name)
    if name != "a3c":  # its processes take seconds to start
        agent.learn()
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert type(loaded) is type(agent)
    assert loaded.config == agent.config
    x = observations(50)
    assert (loaded.predict(x)[0] == agent.predict(x)[0]).all()
    assert loaded.spaces == agent.spaces


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_an_agent_of_unsigned_integers_is_saved(dtype: Any, tmp_path: Path) -> None:
    envs: Any = NoEnvs(gymnasium.spaces.Box(0, 9, (3,), dtype), gymnasium.spaces.Discrete(2), 1)
    agent = rl.A2C(rl.A2CConfig(hidden=(8,)), envs)
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert loaded.spaces == agent.spaces
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    assert (loaded.predict(x)[0] == agent.predict(x)[0]).all()


def test_an_agent_is_not_saved_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^path: expected a file name, got the folder {re.escape(str(tmp_path))}$"):
        small("a2c").save(tmp_path)


class WithArrays(rl.A2C):
    """An agent with a NumPy array in its training state, and, if set, in its policy."""

    in_policy = False

    def policy_state(self) -> dict[str, Any]:
        return super().policy_state() | ({"scale": np.float64(2)} if self.in_policy else {})

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"visits": [np.zeros(3)]}


def test_states_with_numpy_arrays_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    agent = WithArrays(small("a2c").config)
    expected = r"expected a tensor or plain Python \(.*\), got numpy"
    with pytest.raises(UserError, match=rf"^state_dict\(\)\['visits'\]\[0\]: {expected}.ndarray$"):
        agent.learn(out=tmp_path / "run")
    agent.in_policy = True
    with pytest.raises(UserError, match=rf"^policy_state\(\)\['scale'\]: {expected}.float64$"):
        agent.save(tmp_path / "agent.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("episodes", [0, 1.5])
def test_a_wrong_number_of_episodes_is_named(episodes: Any) -> None:
    with pytest.raises(ValueError, match=f"^episodes: expected an int of at least 1, got {episodes}$"):
        small("a2c").evaluate(episodes)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_a_loaded_agent_of_a_box_predicts_the_same(env_id: str, tmp_path: Path) -> None:
    agent = small("a2c", env_id)
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    x = np.random.default_rng(0).standard_normal((9, *agent.spaces[0].shape))
    assert (loaded.predict(x)[0] == agent.predict(x)[0]).all()
    assert loaded.predict(x)[0].dtype == np.float32


@pytest.mark.parametrize("name", ["a2c", "dqn"])
def test_a_loaded_agent_learns_on(name: str, tmp_path: Path) -> None:
    agent = small(name, World)
    agent.learn()
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert loaded.envs.steps == 0
    if name == "dqn":
        target, online = loaded.target.state_dict(), agent.online.state_dict()
        assert all(torch.equal(target[key], online[key]) for key in online)
    assert loaded.learn(100)["env_steps"] >= 100
    for method in ("learn", "evaluate"):
        with pytest.raises(UserError, match=r"CartPole-v1: expected the spaces of the agent, .*\(3,\).*got .*\(4,\)"):
            getattr(rl.load(tmp_path / "agent.pt", env="CartPole-v1"), method)()


def test_an_agent_of_a_callable_of_another_process_needs_the_callable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = small("a2c", World)
    agent.learn(out=tmp_path / "run")
    agent.save(tmp_path / "agent.pt")
    monkeypatch.delitem(gymnasium.registry, "callable/World")
    monkeypatch.setattr("automl_ext.rl.envs.callables._registered", [])
    loaded = rl.load(tmp_path / "agent.pt")
    assert (loaded.predict(np.zeros((3, 3)))[0] == agent.predict(np.zeros((3, 3)))[0]).all()
    for call in (loaded.learn, loaded.evaluate, functools.partial(rl.load_run, tmp_path / "run")):
        with pytest.raises(UserError, match=r"made by the Python callable 'World': pass env= to rl\.load"):
            call()
    assert rl.load(tmp_path / "agent.pt", env=World).evaluate(2).shape == (2,)
    assert rl.load_run(tmp_path / "run", env=World).evaluate(2).shape == (2,)


def test_run_directories(tmp_path: Path) -> None:
    agent = small("dqn")
    agent.learn(out=tmp_path / "run")
    x = observations(50)
    assert (rl.load_run(tmp_path / "run", "last").predict(x)[0] == agent.predict(x)[0]).all()
    best = rl.load_run(tmp_path / "run")
    step = agent.restore_best()
    assert read_tensors(tmp_path / "run/best.pt")["step"] == step
    assert (best.predict(x)[0] == agent.predict(x)[0]).all()
    with pytest.raises(ValueError, match="policy: expected 'best' or 'last', got 'first'"):
        rl.load_run(tmp_path / "run", "first")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not a run directory"):
        rl.load_run(tmp_path)


def test_the_last_policy_of_a_run_learns_on_exactly(tmp_path: Path) -> None:
    whole = small("dqn", prioritized=True)
    whole.learn(out=tmp_path / "whole")
    rl.agents.algorithm("dqn").train(whole.config, tmp_path / "part", stop_after=90)
    part = rl.load_run(tmp_path / "part", "last")
    assert 90 <= part.envs.steps < 200
    part.learn()
    expected, found = whole.policy_state(), part.policy_state()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


class Executed:
    def __reduce__(self) -> Any:
        return exec, ("open('executed', 'w')",)


def test_other_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    agent = small("a2c")
    agent.learn(out="run")
    path = agent.save("agent.pt")
    content = read_tensors(path)

    def refused(message: str, name: str = "other.pt") -> None:
        with pytest.raises(UserError, match=message) as error:
            rl.load(name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)

    refused("nowhere.pt is missing", "nowhere.pt")
    refused("run is a folder: .*rl.load_run", "run")
    refused("is not a saved agent: .*got .*step, return, policy", "run/best.pt")
    Path("other.pt").write_text("hello")
    refused("is damaged")
    Path("other.pt").write_bytes(pickle.dumps(Executed()))
    refused("is damaged")
    torch.save({"policy": Executed(), **{k: v for k, v in content.items() if k != "policy"}}, "other.pt")
    refused(r"is damaged: [^\x1b]*$")  # torch's message has escape codes for bold text
    assert not Path("executed").exists()
    data = path.read_bytes()
    Path("other.pt").write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    refused("does not match its SHA-256")
    for change, message in (
        ({"format": 2}, "has format 2, expected 1"),
        ({"algorithm": "ppoo"}, "algorithm: expected one of"),
        ({"algorithm": "dqn"}, "options removed or renamed"),
        ({"config": 3}, "config: expected dict, got 3"),
        ({"config": content["config"] | {"n_envs": "8"}}, "n_envs must be int"),
        ({"config": content["config"] | {"hidden": [10**9, 10**9]}}, "hidden"),
        ({"observations": {"kind": "Box"}}, "spaces: "),
        ({"actions": {"kind": "Discrete", "n": 0, "start": 0}}, "spaces: "),
        ({"actions": {"kind": "Discrete", "n": 3, "start": 0}}, r"policy.actor.2.weight: expected .*\[3, 8\]"),
        ({"policy": {}}, "policy.*is missing"),
        ({"policy": [1]}, "policy: expected a dict, got list"),
    ):
        write_tensors(Path("other.pt"), content | change)
        refused(message)


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Discrete(3, start=-1),
        gymnasium.spaces.Discrete(3, dtype=np.int32),
        gymnasium.spaces.Box(-1, np.array([1, np.inf], np.float32), dtype=np.float32),
        gymnasium.spaces.Box(-2, 2, (3,), np.float64),
        gymnasium.spaces.Box(0, 255, (2, 4, 4), np.uint8),
        gymnasium.spaces.Box(0, 1, (2, 2, 3), bool),
    ],
)
def test_spaces_are_saved(space: gymnasium.Space) -> None:
    assert space_from_dict(space_to_dict(space)) == space
    assert space_from_dict(space_to_dict(space)).dtype == space.dtype


def test_the_version_is_in_the_file(tmp_path: Path) -> None:
    saved, _ = read_agent(small("a2c").save(tmp_path / "agent.pt"))
    assert (saved["algorithm"], saved["config"]["env_id"]) == ("a2c", "CartPole-v1")
    assert saved["automl_ext"] == __version__


@pytest.mark.parametrize("name", ["dqn", "rainbow", "a2c", "reinforce", "ppo"])
def test_device_auto_is_resolved(name: str, tmp_path: Path) -> None:
    """Runs of other devices are loaded with "auto": it once reached torch as it is."""
    agent = rl.make(
        name, "CartPole-v1", device="auto", total_steps=64, hidden=(8, 8), final_episodes=1, eval_episodes=1
    )
    assert agent.learn()["env_steps"] >= 64
