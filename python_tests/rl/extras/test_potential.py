"""Potential-based shaping: it changes q by −Φ and no optimal policy, in MDPs and in what agents learn."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from dqn_worlds import GAMMA, Fork, small
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rl_worlds import Scripted

from automl_ext import rl
from automl_ext.cli import main
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.extras import Potential
from automl_ext.rl.extras.potential import POTENTIALS, Shaping, shaping_rewards

SHORT = [
    *("--total-steps", "600", "--eval-every", "300", "--checkpoint-every", "300", "--hidden", "8"),
    *("--eval-episodes", "2", "--final-episodes", "2"),
]
EARLY = ["--learning-starts", "64", "--train-freq", "32", "--gradient-steps", "4"]
PLACES = np.array([0.5, -1.0, 2.0, 7.0])  # Φ of Fork's states; that of the end must not matter


def of_place(observations: np.ndarray) -> np.ndarray:
    return observations @ PLACES


@pytest.mark.parametrize("gamma", [0.0, 0.7, 0.99])
def test_q_changes_by_the_potential_and_the_optimal_policy_stays(gamma: float) -> None:
    g = torch.Generator().manual_seed(0)
    p = torch.rand(20, 5, 3, 5, generator=g, dtype=torch.float64)
    p = p / p.sum(-1, keepdim=True)
    rewards = torch.rand(20, 5, 3, generator=g, dtype=torch.float64)
    end = (torch.rand(20, 5, 3, 5, generator=g) < 0.3).double()  # transitions that end the episode
    potential = 5 * torch.rand(20, 5, generator=g, dtype=torch.float64)
    before, after = potential[:, :, None, None].expand_as(p), potential[:, None, None, :].expand_as(p)
    shaping = torch.from_numpy(shaping_rewards(before.numpy(), after.numpy(), end.bool().numpy(), gamma))
    plain = rl.policy_iteration(rl.MDP(p, rewards, end), gamma)
    shaped = rl.policy_iteration(rl.MDP(p, rewards + (p * shaping).sum(-1), end), gamma)
    difference = shaped.q_values - (plain.q_values - potential.unsqueeze(-1))
    assert difference.abs().max() < 1e-12
    assert torch.equal(shaped.policy, plain.policy)


def test_dqn_learns_the_values_minus_the_potential() -> None:
    """The environments have time limits, so a truncated step that used a wrong observation would be noticed."""
    makers = [lambda n=n: Fork(n) for n in (None, 2, 3, 5)]
    envs = Envs(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP), 0)
    envs.transforms = [Shaping(of_place, GAMMA)]
    agent = rl.DQN(small(), envs)
    while envs.steps < 2_500:
        agent.iterate()
    with torch.no_grad():
        q = agent.online(torch.eye(4)[:3]).numpy()
    stay = 0.3 / (1 - GAMMA)
    true = np.array([[GAMMA**2, stay], [GAMMA, GAMMA], [1.0, 1.0]])
    np.testing.assert_allclose(q, true - PLACES[:3, None], atol=0.15)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_every_episode_sums_to_its_return_minus_the_potential_of_its_start(mode: AutoresetMode) -> None:
    """With γ = 1 the shaping telescopes: a terminated episode adds −Φ(start), a truncated one Φ(final) − Φ(start)."""

    def potential(observations: np.ndarray) -> np.ndarray:
        return 100.0 + observations @ np.array([7.0, 5.0, 3.0])

    envs = Envs(SyncVectorEnv([lambda i=i: Scripted(i) for i in range(3)], autoreset_mode=mode), 0)
    envs.transforms = [Shaping(potential, 1.0)]
    sums, starts, expected = np.zeros(3), potential(envs.observations), []
    for _ in range(40):
        step = envs.step(np.array([1, 2, 3]))
        sums += step.rewards
        for i in np.flatnonzero(step.terminated | step.truncated):
            episode = envs.episodes.pop(0)
            final = 0.0 if step.terminated[i] else potential(step.next_observations)[i]
            expected.append((sums[i], episode.episode_return + final - starts[i]))
            sums[i] = 0.0
        begun = envs.starting
        starts[begun] = potential(envs.observations)[begun]
    assert len(expected) > 20
    np.testing.assert_allclose(*zip(*expected, strict=True), rtol=1e-6)


def test_potentials_rise_towards_the_goal() -> None:
    car = POTENTIALS["mountain-car"](np.array([[-np.pi / 6, 0], [-0.5, 0.03], [0.5, 0.0], [-1.2, 0.07]], np.float32))
    assert car[0] == pytest.approx(-50)
    assert car[0] < car[1] < car[2]
    assert car[2:] == pytest.approx([0, 0], abs=1e-4)
    lake = POTENTIALS["frozen-lake"](np.eye(16, dtype=np.int64))
    assert lake.reshape(4, 4)[0].tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert np.array_equal(lake.reshape(4, 4), lake.reshape(4, 4).T)
    assert lake[-1] == 1


def run(out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["train", "dqn", "--out", str(out), *SHORT, *arguments]) == 0
    return json.loads((out / "result.json").read_text()) if (out / "result.json").exists() else {}


def test_own_potential_returns_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_potential.py").write_text("def angle(observations):\n    return -1000 * abs(observations[:, 2])\n")
    options = ["--potential.function", "own_potential:angle", *EARLY]
    run(tmp_path / "whole", *options)
    run(tmp_path / "parts", *options, "--stop-after", "300")
    run(tmp_path / "parts", *options, "--resume", "auto")
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts"))
    assert whole == parts
    returns = [json.loads(line).get("episode_return") for line in whole.splitlines()]
    assert all(value > 0 for value in returns)  # CartPole's own returns
    run(tmp_path / "plain", *EARLY)
    assert (tmp_path / "plain/metrics.jsonl").read_text() != whole
    assert main(["eval", str(tmp_path / "whole"), "--episodes", "1"]) == 2
    assert "names the Python module own_potential" in capsys.readouterr().err
    for policy in ("best", "last"):
        arguments = ["--episodes", "1", "--policy", policy, "--trust", "own_potential"]
        assert main(["eval", str(tmp_path / "whole"), *arguments]) == 0


def test_a_loaded_agent_goes_on_shaping(tmp_path: Path) -> None:
    options = {"total_steps": 200, "eval_every": 200, "eval_episodes": 1, "final_episodes": 1, "hidden": (8,)}
    options |= {"normalize_rewards": False}
    agent = rl.make("a2c", "MountainCar-v0", extras=[Potential("mountain-car")], **options)
    loaded = rl.load(agent.save(tmp_path / "agent"))
    loaded.learn(100)
    (shaping,) = loaded.envs.transforms
    assert isinstance(shaping, Shaping)
    assert shaping.gamma == 0.99


@pytest.mark.parametrize(
    ("env_id", "potential", "message"),
    [
        ("CartPole-v1", "mountain-car", "mountain-car: expected observations .2., got .4."),
        ("CartPole-v1", "frozen-lake", "frozen-lake: expected one-hot observations"),
        ("CartPole-v1", "hill", "potential hill: expected one of mountain-car, frozen-lake, or MODULE:FUNCTION"),
        ("CartPole-v1", "math:sin", "potential math:sin raised TypeError"),
        ("CartPole-v1", "math:pi", "potential math:pi: expected a function, got 3.14"),
        ("CartPole-v1", "numpy:abs", r"potential numpy:abs: expected 1 finite numbers for observations \[1, 4\]"),
    ],
)
def test_wrong_potentials_end_before_a_run(
    tmp_path: Path, capsys: Any, env_id: str, potential: str, message: str
) -> None:
    out = tmp_path / "run"
    assert main(["train", "dqn", "--env-id", env_id, "--potential.function", potential, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not out.exists()


def test_frozen_lake_runs_with_gymnasiums_flattening(tmp_path: Path) -> None:
    wrapper = ["--wrapper", "gymnasium.wrappers:FlattenObservation", "--potential.function", "frozen-lake"]
    result = run(tmp_path / "lake", "--env-id", "FrozenLake8x8-v1", *wrapper)
    assert 0 <= result["eval_return_mean"] <= 1
    assert gymnasium.spec("FrozenLake8x8-v1").max_episode_steps == 200
