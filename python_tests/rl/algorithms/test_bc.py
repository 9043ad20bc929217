"""Behavior cloning: what the clone learns, resuming, and reinforcement learning that starts from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from compare_runs import same_runs
from dqn_worlds import Corridor, corridor_values, recorded, walks
from gymnasium import spaces

from automl_ext import rl
from automl_ext.cli import main
from automl_ext.rl.envs.vector import NoEnvs
from automl_ext.rl.extras import InitialPolicy
from automl_ext.rl.extras.initial_policy import read_policy
from automl_ext.rl.replay.episode_files import read_episodes, write_episodes
from automl_ext.rl.replay.episodes import as_recorded
from automl_ext.training.errors import UserError

FAST: dict[str, Any] = {"hidden": (32,), "lr": 1e-2, "eval_every": 500, "eval_episodes": 2, "final_episodes": 2}


def test_the_clone_has_the_probabilities_and_values_of_the_recorded_policy() -> None:
    agent = rl.make("bc", Corridor, total_steps=400, gamma=0.9, **FAST)
    episodes = walks(0.8, episodes=300)
    agent.set_episodes(episodes)
    result = agent.learn()
    assert result["eval_return_mean"] == 1.0  # the most probable action, in the environment's numbering
    with torch.no_grad():
        outputs, values = agent.network(torch.eye(5)[1:4])
    np.testing.assert_allclose(outputs.softmax(1)[:, 1], 0.8, atol=0.06)
    np.testing.assert_allclose(values, corridor_values(episodes, 0.9), atol=0.06)


def test_a_truncated_episode_bootstraps() -> None:
    """Every episode is truncated after three steps of reward 1: all values are 1 / (1 − γ)."""
    agent = rl.make("bc", Corridor, total_steps=450, gamma=0.8, **FAST)
    observations, no = np.eye(5)[[1, 2, 1, 2]], np.zeros(3, bool)
    episode = {"observations": observations, "actions": [11, 10, 11], "rewards": [1, 1, 1], "terminations": no}
    agent.set_episodes([episode | {"truncations": no}])
    agent.learn()
    with torch.no_grad():
        np.testing.assert_allclose(agent.network(torch.eye(5)[1:3])[1], 5, atol=0.3)


def test_continuous_actions_are_cloned_in_the_units_of_the_environment() -> None:
    class Wide(gymnasium.Env):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)
        action_space = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(2, np.float32), 0.0, True, False, {}

    agent = rl.make("bc", Wide, total_steps=300, **FAST)
    x = np.random.default_rng(0).uniform(-1, 1, (201, 2))
    actions = np.stack([x[:-1, 0], 5 + 3 * x[:-1, 1]], 1).astype(np.float32)
    no = np.zeros(200, bool)
    agent.set_episodes(
        [{"observations": x, "actions": actions, "rewards": np.zeros(200), "terminations": no, "truncations": no}]
    )
    agent.learn()
    np.testing.assert_allclose(agent.act(x[:50].astype(np.float32)), actions[:50], atol=0.6)


def test_an_action_dimension_with_equal_bounds_is_cloned() -> None:
    action_space = spaces.Box(np.float32([-1, 2]), np.float32([1, 2]))
    agent = rl.BC(rl.BCConfig(**FAST), NoEnvs(spaces.Box(-1, 1, (2,), np.float32), action_space, 1))
    no, actions = np.zeros(20, bool), np.float32([[0.5, 2]] * 20)
    episode = {"observations": np.zeros((21, 2)), "actions": actions, "rewards": np.zeros(20), "terminations": no}
    agent.set_episodes([episode | {"truncations": no}])
    for _ in range(10):
        measured = agent.iterate()
    assert np.isfinite(measured["policy_loss"])
    np.testing.assert_allclose(agent.act(np.zeros((1, 2), np.float32)), [[0.5, 2]], atol=0.3)


def test_rewards_do_not_change_the_policy_of_images() -> None:
    """Policy and value share the convolutions."""
    rng = np.random.default_rng(0)
    no, agents = np.zeros(64, bool), []
    episode = {"observations": rng.integers(2, size=(65, 5, 5, 2), dtype=np.uint8), "actions": rng.integers(3, size=64)}
    for reward in (0.0, 100.0):
        envs = NoEnvs(spaces.Box(0, 1, (5, 5, 2), np.uint8), spaces.Discrete(3), 1)
        agent = rl.BC(rl.BCConfig(**FAST, max_grad_norm=np.inf), envs)
        agent.set_episodes([episode | {"rewards": np.full(64, reward), "terminations": no, "truncations": no}])
        agent.iterate()
        agents.append(agent)
    first, second = (agent.network for agent in agents)
    assert not torch.equal(first.critic.weight, second.critic.weight)
    observations = torch.from_numpy(episode["observations"])
    assert torch.equal(first.policy(observations), second.policy(observations))


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    episodes = recorded(gymnasium.make("CartPole-v1"), lambda: int(rng.integers(2)), 8)
    write_episodes(tmp_path / "data.npz", as_recorded(episodes), "CartPole-v1")
    return str(tmp_path / "data.npz")


SHORT = ["--total-steps", "60", "--eval-every", "30", "--eval-episodes", "1", "--final-episodes", "1"]


@pytest.mark.parametrize("algorithm", ["bc", "cql", "iql"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, capsys: Any, data: str, algorithm: str) -> None:
    def train(name: str, *arguments: str) -> int:
        small = ["--hidden", "8", "--batch-size", "16", "--checkpoint-every", "20", "--normalize-observations", *SHORT]
        return main(["train", algorithm, "--out", str(tmp_path / name), *small, *arguments])

    assert train("whole", "--episodes", data) == 0
    assert train("parts", "--episodes", data, "--stop-after", "40") == 0
    shutil.copyfile(data, tmp_path / "other.npz")
    assert train("parts", "--episodes", data, "--episodes", data, "--resume", "auto") == 2
    assert train("parts", "--episodes", data, "--resume", "auto") == 0
    same_runs(tmp_path / "whole", tmp_path / "parts")
    for policy in ("best", "last"):
        assert main(["eval", str(tmp_path / "whole"), "--episodes", "1", "--policy", policy]) == 0
    assert main(["export", str(tmp_path / "whole"), "--out", str(tmp_path / "policy")]) == 0
    capsys.readouterr()


def test_other_data_under_the_same_name_end_a_resumed_run(tmp_path: Path, capsys: Any, data: str) -> None:
    command = ["train", "bc", "--out", str(tmp_path / "run"), "--hidden", "8", "--episodes", data, *SHORT]
    assert main([*command, "--stop-after", "30"]) == 0
    write_episodes(Path(data), as_recorded(walks(0.5, 1)), "Corridor")
    assert main([*command, "--resume", "auto"]) == 2
    printed = capsys.readouterr().err
    assert "data.npz, recorded in Corridor: episode 0: observations: expected float32 [4]" in printed
    assert "as in the environment, got float32 [5]" in printed


def test_episodes_of_another_environment_are_named(tmp_path: Path, data: str) -> None:
    agent = rl.make("bc", "CartPole-v1", episodes=(data,))
    agent.prepare()  # the same environment: no warning
    write_episodes(tmp_path / "other.npz", read_episodes(data), "CartPole-v0")
    with pytest.warns(
        UserWarning, match=r"recorded in CartPole-v0: the policy is evaluated in CartPole-v1 \(--env-id\)"
    ):
        rl.make("bc", "CartPole-v1", episodes=(str(tmp_path / "other.npz"),)).prepare()


@pytest.mark.parametrize(
    ("algorithm", "arguments", "message"),
    [
        ("bc", [], "episodes: expected a file of automl-ext record, got none: --episodes FILE"),
        ("cql", ["--episodes", "none.npz"], "none.npz is not a readable npz file"),
        ("iql", ["--expectile", "1"], "expectile: expected above 0 and below 1, got 1"),
        ("cql", ["--env-id", "Pendulum-v1"], "action space .*: all agents take Discrete"),
    ],
)
def test_errors_come_before_a_run_directory(
    tmp_path: Path, capsys: Any, algorithm: str, arguments: list[str], message: str
) -> None:
    out = tmp_path / "run"
    assert main(["train", algorithm, "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=message):
        raise UserError(error)
    assert not out.exists()


def test_actions_that_the_environment_lacks_are_refused() -> None:
    agent = rl.make("cql", Corridor, **FAST)
    episodes = walks(0.5, 2)
    episodes[1]["actions"][0] = 12
    with pytest.raises(UserError, match=r"episodes: episode 1: actions: expected values of Discrete.*, got 12"):
        agent.set_episodes(episodes)
    with pytest.raises(ValueError, match="set_episodes"):
        agent.iterate()


def test_training_goes_on_from_the_clone(tmp_path: Path, capsys: Any, data: str) -> None:
    bc, out = tmp_path / "bc", tmp_path / "a2c"
    assert main(["train", "bc", "--out", str(bc), "--episodes", data, "--hidden", "8", *SHORT]) == 0
    options = {"hidden": (8,), "total_steps": 80, "eval_every": 40, "eval_episodes": 1, "final_episodes": 1}
    agents = [rl.make(name, "CartPole-v1", extras=[InitialPolicy(str(bc))], **options) for name in ("a2c", "reinforce")]
    clone = rl.load_run(bc)
    for agent in agents:
        agent.prepare()
        for name, weight in clone.policy_state().items():
            assert torch.equal(agent.policy_state()[name], weight)
        assert np.shares_memory(agent.parameters.detach().numpy(), next(agent.network.parameters()).detach().numpy())
    agents[0].learn()
    trained = agents[0].policy_state()["actor.2.weight"].clone()
    assert not torch.equal(trained, clone.policy_state()["actor.2.weight"])
    loaded = rl.load(agents[0].save(tmp_path / "agent"))
    assert isinstance(loaded.envs, NoEnvs)
    loaded.prepare()
    assert torch.equal(loaded.policy_state()["actor.2.weight"], trained)  # the loaded policy, not the clone
    command = ["train", "a2c", "--out", str(out), "--initial-policy.path", str(bc), "--hidden", "8", *SHORT]
    assert main(command) == 0
    shutil.rmtree(bc)
    assert main(["eval", str(out), "--episodes", "1", "--policy", "last"]) == 0
    capsys.readouterr()
    assert main([*command[:3], str(tmp_path / "new"), *command[4:]]) == 2
    assert "is missing" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"initial-policy .*agent: policy.actor.0.weight: expected .*the same hidden"):
        read_policy(str(tmp_path / "agent"), rl.make("a2c", "CartPole-v1").policy_state())


MISTAKES: dict[str, Any] = {
    "^episodes: expected several episodes, .* got one dict": lambda episode: episode,
    "^episode 1: expected an object or a dict with observations, .*; rewards is missing": lambda episode: [
        episode,
        {name: value for name, value in episode.items() if name != "rewards"},
    ],
    **{
        f"^episode 0: {name}: expected an entry per step, got shape {shape}": lambda episode, name=name, value=value: [
            episode | {name: value}
        ]
        for name, value, shape in (
            ("observations", {"a": 1}, r"\[\]"),
            ("rewards", 1.0, r"\[\]"),
            ("rewards", np.ones((5, 1)), r"\[5, 1\]"),
            ("terminations", np.zeros((5, 1), bool), r"\[5, 1\]"),
        )
    },
    "^episode 0: observations: expected finite numbers, got ": lambda episode: [
        episode | {"observations": np.full(episode["observations"].shape, np.inf)}
    ],
    "^episode 0: rewards: expected finite numbers, got ": lambda episode: [
        episode | {"rewards": np.full(len(episode["rewards"]), np.nan)}
    ],
    "^episode 0: actions: expected finite numbers, got ": lambda episode: [
        episode | {"actions": np.full(len(episode["actions"]), np.nan)}
    ],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_in_episodes_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        as_recorded(MISTAKES[text](walks(0.5, 1)[0]))
