"""Scaling of rewards and normalization of advantages in A2C, compared with their formulas."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from policy_worlds import Bandit, envs_in, one_hot

from automl_ext.rl import A2C, A2CConfig, A3CConfig
from automl_ext.rl.actor_critic.a2c import standardized, train
from automl_ext.rl.actor_critic.reward_scale import RewardScale
from automl_ext.rl.envs.rollouts import Rollout

GAMMA = 0.9


def rollout(rng: np.random.Generator, steps: int, factor: float = 1.0) -> Rollout:
    """Random rewards in three environments; an episode's end is followed by a step that only restarts it."""
    ended = rng.random((steps, 3)) < 0.2
    valid = np.ones((steps, 3), bool)
    valid[1:] = ~ended[:-1]
    ended &= valid
    rewards = np.where(valid, rng.standard_normal((steps, 3)) + 1, 0.0) * factor
    terminated = ended & (rng.random((steps, 3)) < 0.5)
    parts: list[Any] = [np.zeros(1), np.zeros(1), rewards.astype(np.float32), terminated, ended & ~terminated, valid]
    return Rollout(*(torch.from_numpy(x) for x in [*parts, np.zeros(1)]))


def test_rewards_are_divided_by_the_standard_deviation_of_returns() -> None:
    scale, rng = RewardScale(3, GAMMA, torch.device("cpu")), np.random.default_rng(0)
    running, seen = np.zeros(3), []
    for _ in range(4):
        part = rollout(rng, 7)
        found = scale(part)
        for t in range(7):
            for i in range(3):
                running[i] = GAMMA * running[i] + float(part.rewards[t, i])
                if part.valid[t, i]:
                    seen.append(running[i])
                if part.terminated[t, i] or part.truncated[t, i]:
                    running[i] = 0.0
        expected = part.rewards.numpy() / np.sqrt(np.var(seen) + 1e-8)
        np.testing.assert_allclose(found.numpy(), expected.clip(-10, 10), rtol=1e-4)
    restored = RewardScale(3, GAMMA, torch.device("cpu"))
    restored.load_state_dict(copy.deepcopy(scale.state_dict()))
    part = rollout(rng, 5)
    assert torch.equal(restored(part), scale(part))


def test_the_scale_of_the_environment_does_not_matter() -> None:
    small, large = (RewardScale(3, GAMMA, torch.device("cpu")) for _ in range(2))
    for seed in range(3):
        a, b = (scale(rollout(np.random.default_rng(seed), 6, f)) for scale, f in ((small, 1.0), (large, 500.0)))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_advantages_are_standardized_over_the_valid_steps() -> None:
    x, valid = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 7 + 3, torch.arange(50) % 3 > 0
    found = standardized(x, valid / valid.sum())[valid].numpy()
    kept = x[valid].numpy()
    np.testing.assert_allclose(found, (kept - kept.mean()) / kept.std(), rtol=1e-4, atol=1e-6)


class Magnified(Bandit):
    """The bandit with rewards of 300 instead of 1."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        return observation, 300 * reward, *rest


OPTIONS: dict[str, Any] = {"scale_rewards": True, "normalize_advantages": True}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_learns_from_large_rewards_and_reports_them_unchanged(mode: AutoresetMode) -> None:
    config = A2CConfig(hidden=(16,), lr=5e-3, optimizer="adam", gamma=0.5, **OPTIONS)
    agent = A2C(config, envs_in(Magnified, mode=mode))
    for _ in range(150):
        agent.iterate()
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]
    with torch.no_grad():
        assert agent.network(torch.from_numpy(one_hot(3)))[1].abs().max() < 20
    assert max(episode.episode_return for episode in agent.envs.episodes) >= 300


def test_a_run_is_resumed_exactly(tmp_path: Path) -> None:
    config = A2CConfig(total_steps=800, eval_every=400, eval_episodes=2, final_episodes=2, hidden=(8,), **OPTIONS)
    train(config, tmp_path / "whole")
    assert train(config, tmp_path / "part", stop_after=350) is None
    train(config, tmp_path / "part", resume="auto")
    results = []
    for name in ("whole", "part"):
        result = json.loads((tmp_path / name / "result.json").read_text())
        results.append(
            (result["eval_return_mean"], torch.load(tmp_path / name / "best.pt", weights_only=True)["policy"])
        )
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][key]) for key, value in results[0][1].items())


def test_a3c_takes_no_statistics_of_its_workers() -> None:
    with pytest.raises(ValueError, match="scale_rewards: expected False for A3C"):
        A3CConfig(scale_rewards=True)
