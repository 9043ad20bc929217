"""Environments and wrappers of the user: --env-id module:Id and --wrapper module:function."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from paths import ROOT

from automl_ext import rl
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import make_envs
from automl_ext.rl.reports.evaluate_run import evaluate_run
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import imported_modules

MODULE = '''
"""Episodes of four steps with reward 1 each."""
import gymnasium
import numpy as np
from gymnasium.wrappers import TransformReward


class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(2, self.steps, np.float32), 1.0, self.steps == 4, False, {}


gymnasium.register("OwnWalk-v0", Walk)


def plus_one(env):
    return TransformReward(env, lambda reward: reward + 1)


def double(env):
    return TransformReward(env, lambda reward: 2 * reward)


def nothing(env):
    env.reset()


def fails(env):
    raise RuntimeError("no luck")


number = 3
'''
SMALL = shlex.split(
    "--total-steps 40 --eval-every 20 --eval-episodes 2 --final-episodes 2 --checkpoint-every 20 --hidden 4"
)
BOTH = ["--wrapper", "own_walk:plus_one", "--wrapper", "own_walk:double"]
TRAIN = ["train", "a2c", *SMALL, "--env-id", "own_walk:OwnWalk-v0"]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write own_walk.py into the current directory, which is not on sys.path; forget it afterwards."""
    (tmp_path / "own_walk.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    forget()
    yield
    forget()


def forget() -> None:
    sys.modules.pop("own_walk", None)
    gymnasium.registry.pop("OwnWalk-v0", None)


def test_own_environment_and_wrappers_in_training_evaluation_and_resume(command: Command) -> None:
    code, _, error = command(*TRAIN, *BOTH, "--out", "run", "--stop-after", "20")
    assert code == 0, error
    config = json.loads(Path("run/config.json").read_text())
    assert (config["env_id"], config["env"]["wrapper"]) == (TRAIN[-1], ["own_walk:plus_one", "own_walk:double"])

    forget()
    code, _, error = command("train", "a2c", *SMALL, "--out", "run", "--resume", "auto")
    assert (code, error.count("\n")) == (2, 1)
    assert "env_id was 'own_walk:OwnWalk-v0' and is now 'CartPole-v1'" in error
    assert "own_walk" not in sys.modules

    with pytest.warns(UserWarning, match="new episodes start"):
        code, out, error = command(*TRAIN, *BOTH, "--out", "run", "--resume", "auto")
    assert code == 0, error
    assert "automl-ext eval run --episodes 100 --trust own_walk" in out
    assert json.loads(Path("run/result.json").read_text())["eval_return_mean"] == 4 * 2 * (1 + 1)

    forget()
    code, out, error = command("eval", "run", "--episodes", "3", "--trust", "own_walk", "--json")
    assert (code, json.loads(out)["eval_return_mean"]) == (0, 16)


@pytest.mark.parametrize("env_id", ["own_walk:OwnWalk-v0", "CartPole-v1"])
def test_evaluation_of_a_foreign_run_imports_no_module(command: Command, env_id: str) -> None:
    """A run directory of somebody else names modules: none is imported, unless the command line names it too."""
    wrapper = ["--wrapper", "own_walk:double"] if env_id == "CartPole-v1" else []
    assert command(*TRAIN[:-1], env_id, *wrapper, "--out", "run")[0] == 0
    forget()
    for trust in ([], ["--trust", "own"], ["--trust", "own_walk.more", "--trust", "other"]):
        code, _, error = command("eval", "run", *trust)
        assert (code, error.count("\n")) == (2, 1)
        assert re.search(r"error: run/config\.json names the Python module own_walk .*--trust own_walk$", error)
        assert "own_walk" not in sys.modules
    with pytest.raises(UserError, match="--trust own_walk"):
        evaluate_run(Path("run"), 1)
    assert evaluate_run(Path("run"), 1, trust=["own_walk"])["episodes"] == 1
    forget()
    assert command("plot", "run")[0] == 0  # curves need no environment
    assert "own_walk" not in sys.modules


def test_loading_in_python_trusts_imported_modules_of_the_user(tmp_path: Path) -> None:
    make_envs("own_walk:OwnWalk-v0", 1, 0).close()  # imports the module
    agent = rl.make("a2c", "own_walk:OwnWalk-v0", wrapper=("own_walk:double",), hidden=(4,))
    agent.learn(20, out="run")
    path = agent.save("agent.pt")
    assert rl.load(path).evaluate(1) == 8
    assert rl.load_run("run").evaluate(1) == 8
    forget()
    for load in (rl.load, rl.load_run):
        with pytest.raises(UserError, match="names the Python module own_walk"):
            load(path if load is rl.load else "run")
    assert rl.load(path, trust=["own_walk"]).evaluate(1) == 8
    assert not {"os", "torch", "gymnasium", "automl_ext.rl"} & set(imported_modules())


def test_wrappers_of_gymnasium_need_no_trust(command: Command) -> None:
    code, out, error = command(
        "train", "a2c", *SMALL, "--wrapper", "gymnasium.wrappers:FlattenObservation", "--out", "run"
    )
    assert code == 0, error
    assert "--trust" not in out
    assert command("eval", "run", "--episodes", "1")[0] == 0


def test_option_file_names_only_trusted_modules(command: Command) -> None:
    Path("own.toml").write_text('env_id = "own_walk:OwnWalk-v0"\n[env]\nwrapper = ["own_walk:double"]\n')
    flags = ["train", "a2c", *SMALL, "--config", "own.toml", "--out", "run"]
    code, _, error = command(*flags)
    assert (code, error.count("\n")) == (2, 1)
    assert "error: own.toml names the Python module own_walk" in error
    assert "own_walk" not in sys.modules
    assert not Path("run").exists()
    assert command(*flags, "--trust", "own_walk")[0] == 0
    assert json.loads(Path("run/result.json").read_text())["eval_return_mean"] == 8


@pytest.mark.parametrize("mode", ["auto", "sync", "async"])
def test_wrappers_apply_in_order_inside_the_options(mode: str) -> None:
    for wrapper, reward in (((), 1), (("own_walk:plus_one", "own_walk:double"), 4), (("own_walk:double",) * 2, 4)):
        options = EnvOptions(mode, wrapper=wrapper, action_repeat=2)  # type: ignore[arg-type]
        envs = make_envs("own_walk:OwnWalk-v0", 2, 0, options)
        assert envs.step(np.zeros(2, np.int64)).rewards.tolist() == [2 * reward, 2 * reward]
        envs.close()
    reverse = EnvOptions(wrapper=("own_walk:double", "own_walk:plus_one"))
    assert make_envs("own_walk:OwnWalk-v0", 1, 0, reverse).step(np.zeros(1, np.int64)).rewards == 3


@pytest.mark.slow
def test_worker_processes_import_own_code(command: Command) -> None:
    code, _, error = command("train", "a3c", *TRAIN[2:], "--n-workers", "1", *BOTH, "--out", "run")
    assert code == 0, error
    assert json.loads(Path("run/result.json").read_text())["eval_return_mean"] == 16


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--env-id", "own_wlak:OwnWalk-v0"], r"No module named 'own_wlak' in .*; did you mean own_walk\?"),
        (["--env-id", "own walk:OwnWalk-v0"], "expected a module name, got 'own walk'"),
        (["--env-id", "own_walk:OwnWlak-v0"], "`OwnWlak` doesn't exist; the nearest registered ids are OwnWalk-v0"),
        (["--env-id", "own_walk:Zzz-v0"], "`Zzz` doesn't exist; own_walk registers OwnWalk-v0"),
        (["--env-id", "broken:X-v0"], r"importing broken raised ZeroDivisionError: .* \(.*broken\.py:2\)"),
        (["--env-id", "no_numpy:X-v0"], r"importing no_numpy: No module named 'numpyy' \(.*no_numpy\.py:1\)"),
        (["--wrapper", "own_walk"], "--wrapper own_walk: expected MODULE:NAME"),
        (["--wrapper", "own_walk:"], "--wrapper own_walk:: expected MODULE:NAME"),
        (["--wrapper", "own_walk:doubel"], r"own_walk\.py does not define doubel; did you mean double\?"),
        (["--wrapper", "own_walk:number"], "--wrapper own_walk:number: expected a function or a class, got 3"),
        (["--wrapper", "own_walk:nothing"], "--wrapper own_walk:nothing must return a gymnasium.Env, got NoneType"),
        (["--wrapper", "own_walk:fails"], r"--wrapper own_walk:fails raised RuntimeError: no luck \(.*own_walk.py:\d+"),
        (["--wrapper", "own_walk:double", "--vectorization", "vector_entry_point"], "expected vectorization sync or"),
    ],
)
def test_wrong_own_code_is_one_line_before_a_run_directory(command: Command, flags: list[str], text: str) -> None:
    Path("broken.py").write_text("\n1 / 0\n")
    Path("no_numpy.py").write_text("import numpyy\n")
    code, out, error = command("train", "a2c", *SMALL, *flags, "--out", "run")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert re.search(text, error), error
    assert not Path("run").exists()


def test_the_example_of_the_documentation(command: Command) -> None:
    """The module and the commands of docs/how-to/rl.md, with short runs."""
    page = (ROOT / "docs/how-to/rl.md").read_text().partition("### Your own environment")[2]
    module, commands = re.findall(r"^```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[:2]
    Path("my_envs.py").write_text(module)
    for line in commands.splitlines():
        words = shlex.split(line)[1:]
        code, _, error = command(*words, *(SMALL if words[0] == "train" else ["--episodes", "2"]))
        assert code == 0, error
    assert json.loads(Path("runs/corridor/config.json").read_text())["env"]["wrapper"] == ["my_envs:hurried"]
    assert len(commands.splitlines()) == 2
    del sys.modules["my_envs"], gymnasium.registry["Corridor-v0"]


@pytest.mark.parametrize("wrapper", ["Observation", "Reward"])
def test_wrappers_that_learn_statistics_are_refused(wrapper: str) -> None:
    with pytest.raises(
        UserError, match=f"statistics of Normalize{wrapper} would be missing in evaluations .*; use --nor"
    ):
        make_envs("CartPole-v1", 1, 0, EnvOptions(wrapper=(f"gymnasium.wrappers:Normalize{wrapper}",)))


@pytest.mark.parametrize("space", [spaces.Box(0, 1, (0,)), spaces.Dict({}), spaces.Tuple(())])
def test_observations_without_numbers_are_refused(space: gymnasium.Space) -> None:
    class Empty(gymnasium.Env):
        observation_space, action_space = space, gymnasium.spaces.Discrete(2)

    gymnasium.register("Empty-v0", Empty, disable_env_checker=True)  # it knows some empty spaces, too
    try:
        with pytest.raises(UserError, match=r"--env-id Empty-v0: observations: expected numbers, got shape \(0,\)"):
            make_envs("Empty-v0", 1, 0)
    finally:
        del gymnasium.registry["Empty-v0"]
