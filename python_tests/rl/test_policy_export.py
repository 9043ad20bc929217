"""Exported policies give the agent's actions, in a process without automl_ext, and run nothing from a run directory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fresh_python
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv
from space_worlds import Dials, Listed, Masked, MaskedByKey, Pictured, Switches
from torch.utils._pytree import tree_map

from automl_ext import rl
from automl_ext.cli import main
from automl_ext.rl.export import policy_program
from automl_ext.training.errors import UserError

N = 100  # observations
VECTOR = Box(-np.inf, np.inf, (5,), np.float32)
SHORT = {"total_steps": 100, "eval_every": 50, "eval_episodes": 2, "final_episodes": 2, "n_envs": 2}


class Random(gymnasium.Env):
    """Random observations; episodes of ten steps."""

    def __init__(self, observation_space: Box, action_space: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def observe(self) -> np.ndarray:
        return observations(self.observation_space, 1, self.np_random)[0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observe(), 1.0, self.t == 10, False, {}


def observations(space: Box, n: int, rng: np.random.Generator) -> np.ndarray:
    """Observations that differ much in scale, in the dtype of the environment."""
    shape = (n, *space.shape)
    if space.dtype.kind == "f":
        return (rng.standard_normal(shape) * 10.0 ** np.arange(-2, space.shape[0] - 2)).astype(space.dtype)
    return rng.integers(int(space.low.min()), int(space.high.max()) + 1, shape).astype(space.dtype)


CASES: dict[str, tuple[str, Box, gymnasium.Space, dict[str, Any]]] = {
    "normalized": ("a2c", VECTOR, Discrete(4, start=-1), {"normalize_observations": True, "hidden": (16, 16)}),
    "box": ("a2c", VECTOR, Box(-3, np.array([[1, 5]], np.float32)), {"normalize_observations": True, "hidden": (16,)}),
    "unbounded": (
        "reinforce",
        Box(-1e4, 1e4, (5,), np.float64),
        Box(-np.inf, np.inf, (2,), np.float64),
        {"hidden": (8,)},
    ),
    "linear": ("ppo", VECTOR, Discrete(3), {"hidden": ()}),
    "bytes": ("reinforce", Box(0, 255, (7,), np.uint8), Discrete(3), {"hidden": (16,)}),
    "normalized_bytes": (
        "reinforce",
        Box(0, 255, (7,), np.uint8),
        Discrete(3),
        {"normalize_observations": True, "hidden": (16,)},
    ),
    "images": ("dqn", Box(0, 255, (2, 84, 84), np.uint8), Discrete(6), {"hidden": (16,), "buffer_size": 100}),
    "dqn": ("dqn", VECTOR, Discrete(3, start=2), {"normalize_observations": True, "hidden": (16, 16)}),
    "dueling": ("dqn", VECTOR, Discrete(3), {"dueling": True, "noisy": True, "hidden": (16, 8)}),
    "layer_norm": ("a2c", VECTOR, Discrete(3), {"layer_norm": True, "normalize_observations": True, "hidden": (8,)}),
    "impala": ("a2c", Box(0, 255, (2, 9, 12, 3), np.uint8), Discrete(3), {"body": "impala", "hidden": (8,)}),
    "rainbow": ("rainbow", Box(0, 1, (10, 10, 4), bool), Discrete(6), {"hidden": (16,), "buffer_size": 100}),
}

# Another process loads the programs. It cannot import automl_ext.
SCRIPT = """
import json, sys
import numpy as np, torch
sys.modules["automl_ext"] = None
wrong = []
for name in names:
    data = np.load(f"{name}.npz")
    program = torch.export.load(f"{name}/policy.pt2").module()
    x = data["observations"]
    assert not any(y.requires_grad for y in program(torch.from_numpy(x[:1])) if y is not None)
    for n in (len(x), 1):
        actions = np.concatenate([program(part)[0].numpy() for part in torch.from_numpy(x).split(n)])
        expected = data["actions"]
        same = np.allclose(actions, expected, 1e-5, 1e-5) if expected.dtype.kind == "f" else (actions == expected).all()
        if not same or actions.dtype != expected.dtype or actions.shape != expected.shape:
            wrong.append(f"{name} {n}: {actions.dtype} {actions.shape}")
print(json.dumps(wrong))
"""


def made(name: str) -> rl.Agent:
    """An agent with statistics of observations, and weights with which several actions are the best somewhere."""
    algorithm, observation_space, action_space, options = CASES[name]
    agent = rl.make(algorithm, lambda: Random(observation_space, action_space), n_envs=1, **options)
    network = agent.network if hasattr(agent, "network") else agent.online
    x = torch.from_numpy(observations(agent.spaces[0], 64, np.random.default_rng(1)))
    if network.body.norm is not None:
        network.body.norm.update(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.3)
        outputs = network(x)
        if isinstance(outputs, tuple):
            last = network.actor if isinstance(network.actor, torch.nn.Linear) else network.actor[-1]
            last.bias -= outputs[0].mean(0)
        elif network.atoms is None:
            last = network.head.advantage if hasattr(network.head, "advantage") else network.head[-1]
            last.bias -= outputs.mean(0)
    return agent


@pytest.mark.slow
def test_exported_policies_give_the_actions_of_the_agent_without_automl_ext(tmp_path: Path) -> None:
    for name, (_, space, *_) in CASES.items():
        agent = made(name)
        files = rl.export_policy(agent, tmp_path / name)
        assert [file.name for file in files] == ["policy.pt2", "policy.json", "README.md"]
        x = observations(space, N, np.random.default_rng(0))
        actions, _ = agent.predict(x)
        assert len(np.unique(actions)) >= 2, name
        np.savez(tmp_path / f"{name}.npz", observations=x, actions=actions)
    status, printed, error = fresh_python.run(f"names = {[*CASES]!r}\n{SCRIPT}", root=tmp_path)
    assert status == 0, error
    assert json.loads(printed) == []
    facts = {name: json.loads((tmp_path / name / "policy.json").read_text()) for name in CASES}
    assert facts["normalized"]["actions"] == {"n": 4, "start": -1}
    assert facts["normalized"]["observations"] == {"shape": [5], "dtype": "float32", "low": "-inf", "high": "inf"}
    norm = made("normalized").network.body.norm
    np.testing.assert_allclose(facts["normalized"]["normalization"]["std"], 1 / norm.scale, rtol=1e-6)
    assert facts["unbounded"]["observations"] == {"shape": [5], "dtype": "float64", "low": -1e4, "high": 1e4}
    assert facts["unbounded"]["normalization"] is None
    assert facts["images"]["normalization"] == {"factor": 1 / 255}
    assert 'torch.export.load("policy.pt2")' in (tmp_path / "images/README.md").read_text()


# Kinds of observations, actions and masks -> algorithm, world, options.
STRUCTURED: dict[str, tuple[str, type[gymnasium.Env], dict[str, Any]]] = {
    "image, number and vector": ("ppo", Pictured, {"normalize_observations": True}),
    "tuple": ("a2c", Listed, {"normalize_observations": True}),
    "mask in info": ("reinforce", Masked, {}),
    "mask in a dict": ("ppo", MaskedByKey, {"layer_norm": True}),
    "masks of two actions": ("a2c", Dials, {"normalize_observations": True}),
    "binary actions": ("ppo", Switches, {}),
    "dqn": ("dqn", Pictured, {"dueling": True}),
    "dqn with masks": ("dqn", Masked, {"normalize_observations": True}),
    "rainbow": ("rainbow", MaskedByKey, {"buffer_size": 100}),
}
STRUCTURED_SCRIPT = """
import sys, torch
sys.modules["automl_ext"] = None
for name in names:
    inputs, expected = torch.load(f"{name}.pt", weights_only=True)
    policy = torch.export.load(f"{name}/policy.pt2").module()
    actions = policy(*inputs)[0]
    assert actions.dtype == expected.dtype and torch.equal(actions, expected), name
    one = torch.utils._pytree.tree_map(lambda x: x[:1], inputs)
    assert torch.equal(policy(*one)[0], expected[:1]), name
"""


@pytest.mark.slow
def test_policies_of_structured_spaces_and_masks_give_the_actions_of_the_agent(tmp_path: Path) -> None:
    for name, (algorithm, world, options) in STRUCTURED.items():
        agent = rl.make(algorithm, world, n_envs=1, hidden=(16,), **options)
        network = agent.network if hasattr(agent, "network") else agent.online
        vector = SyncVectorEnv([world] * N)
        observations, info = vector.reset(seed=0)
        mask = info.get("action_mask")
        seen = torch.from_numpy(agent.spaces[0].pack(observations, N, mask))
        if network.body.norm is not None:
            network.body.norm.update(seen)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
            if world is Switches:  # several actions are the best somewhere
                network.actor[-1].bias -= network.policy(seen).mean(0)
        rl.export_policy(agent, tmp_path / name)
        actions, _ = agent.predict(observations, action_mask=mask)
        assert len(np.unique(actions, axis=0)) >= 2, name
        inputs = tree_map(torch.from_numpy, (observations, *([] if mask is None else [mask])))
        torch.save((inputs, torch.from_numpy(np.asarray(actions))), tmp_path / f"{name}.pt")
    status, _, error = fresh_python.run(f"names = {[*STRUCTURED]!r}\n{STRUCTURED_SCRIPT}", root=tmp_path)
    assert status == 0, error
    readme = (tmp_path / "image, number and vector/README.md").read_text()
    assert "- `observations['picture']`: uint8 [N, 5, 5, 1]\n- `observations['vector']`: float64 [N, 2]\n" in readme
    readme = (tmp_path / "masks of two actions/README.md").read_text()
    assert "policy(observations, action_mask)" in readme
    assert "- `action_mask`: bool [N, 9]" in readme
    facts = json.loads((tmp_path / "masks of two actions/policy.json").read_text())
    assert facts["actions"] == {"nvec": [6, 3], "start": [1, 5], "dtype": "int64"}
    assert facts["action_mask"] == [6, 3]
    assert facts["observations"] == {"shape": [2], "dtype": "float32", "low": 0.0, "high": 1.0}
    facts = json.loads((tmp_path / "image, number and vector/policy.json").read_text())
    assert facts["observations"]["number"] == {"n": 2, "start": 3}
    assert len(facts["normalization"]["mean"]) == 4  # a number as two, and the vector


def test_a_dict_is_an_input_by_its_names(tmp_path: Path) -> None:
    """A policy of a Dict was refused: policy gradients, such as PPO itself, would take it."""
    agent = rl.make("ppo", MaskedByKey, n_envs=1, hidden=(8,))
    rl.export_policy(agent, tmp_path)
    policy = torch.export.load(tmp_path / "policy.pt2").module()
    state, mask = torch.zeros(7, 2), torch.eye(7, 6, dtype=torch.int8)
    mask[6, 3] = 1
    actions, scores, values = policy({"action_mask": mask, "state": state})
    assert actions.tolist() == [0, 1, 2, 3, 4, 5, 3]
    assert (scores.isinf() == (mask == 0)).all()
    assert values.shape == (7,)


def test_scores_and_values_are_those_of_the_agent() -> None:
    x = torch.from_numpy(observations(VECTOR, N, np.random.default_rng(0)))
    agent = made("normalized")
    with torch.no_grad():
        _, logits, values = policy_program(agent)(x)
        expected = agent.network(x)
    torch.testing.assert_close((logits, values), expected)
    agent = made("dueling")
    with torch.no_grad():
        _, q, none = policy_program(agent)(x)
        agent.online.eval()
        torch.testing.assert_close(q, agent.online.q(agent.online(x), x))
    assert none is None


def test_a3c_is_exported_like_a2c(tmp_path: Path) -> None:
    agent = rl.make("a3c", "CartPole-v1", hidden=(8,))
    rl.export_policy(agent, tmp_path)
    x = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32)
    program = torch.export.load(tmp_path / "policy.pt2").module()
    assert (program(torch.from_numpy(x))[0].numpy() == agent.act(x)).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    rl.make("a2c", "CartPole-v1", hidden=(8,), **SHORT).learn(out=path)
    return path


def test_command_exports_the_best_or_the_last_policy(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("best", "last"):
        assert main(["export", str(run), "--out", name, "--policy", name]) == 0
        assert capsys.readouterr().out.split() == [f"{name}/policy.pt2", f"{name}/policy.json", f"{name}/README.md"]
        written = torch.export.load(f"{name}/policy.pt2").state_dict
        for key, value in policy_program(rl.load_run(run, name)).state_dict().items():  # type: ignore[arg-type]
            assert torch.equal(written[key], value)


HOSTILE = 'CartPole-v1"""; open("executed", "w"); """'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_id": HOSTILE}, "--env-id CartPole-v1.*Malformed|--env-id CartPole-v1"),
        ({"env_id": "callable/Unregistered"}, "made by the Python callable 'Unregistered'"),
        ({"hidden": [10**9, 10**9]}, "hidden"),
        ({"hidden": ['open("executed", "w")']}, "hidden must be tuple"),
        ({"hidden": [9]}, "best.pt does not fit the agent"),
        ({"normalize_observations": 'open("executed", "w")'}, "normalize_observations must be bool"),
        ({"unknown": 1}, "options removed or renamed: unknown"),
    ],
)
def test_manipulated_runs_are_rejected(
    change: dict[str, Any],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("config.json", "environment.json", "best.pt"):
        (changed / name).write_bytes((run / name).read_bytes())
    config = json.loads((run / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | change))
    assert main(["export", "run", "--out", "policy"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_exported_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    sizes = {"deter": 4, "stoch": 3, "hidden": 4, "units": 4}
    with pytest.raises(UserError, match=r"export: a policy of dreamer cannot be exported; .*takes dqn, rainbow, a2c"):
        rl.export_policy(rl.make("dreamer", "CartPole-v1", **sizes), tmp_path / "policy")
    for name in ("policy.py", "policy.pt2", "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"expected a folder for policy.pt2, policy.json and README.md"):
            rl.export_policy(run, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    number: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved again by torch.save, a file has no checksum that would tell."""
    run = tmp_path / "run"
    rl.make("a2c", "CartPole-v1", **SHORT).learn(out=run)
    best = torch.load(run / "best.pt", weights_only=True)
    name = next(iter(best["policy"]))
    best["policy"][name].view(-1)[0] = number
    torch.save(best, run / "best.pt")
    capsys.readouterr()
    for words in (["eval", str(run)], ["export", str(run), "--out", str(tmp_path / "out")]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert f"best.pt does not fit the agent of {run}: policy.{name}: expected finite numbers, got" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    agent = rl.load_run(run, "last")
    agent.load_policy_state(best["policy"])
    agent.save(tmp_path / "agent.pt")
    agent.close()
    with pytest.raises(UserError, match=r"agent\.pt: cannot make the agent: .*expected finite numbers"):
        rl.load(tmp_path / "agent.pt")
