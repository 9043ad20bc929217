"""Normalization of rewards and of advantages, compared with their formulas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from policy_worlds import Bandit, Patience, envs_in, one_hot

from automl_ext import rl
from automl_ext.rl import A2C, PPO, A2CConfig, PPOConfig, Reinforce, ReinforceConfig
from automl_ext.rl.envs.reward_scale import RewardScale
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras import RND, CountBonus, Extras, InitialPolicy
from automl_ext.rl.loop.policy_agent import REWARD_MOMENTS
from automl_ext.training.errors import UserError

GAMMA = 0.9


def steps(rng: np.random.Generator, number: int, factor: float = 1.0) -> list[Step]:
    """Random rewards in three environments; an episode's end is followed by a step that only restarts it."""
    found, restarting, x = [], np.zeros(3, bool), np.zeros((3, 1), np.float32)
    for _ in range(number):
        valid = ~restarting
        ended = (rng.random(3) < 0.2) & valid
        terminated = ended & (rng.random(3) < 0.5)
        rewards = np.where(valid, rng.standard_normal(3) + 1, 0.0) * factor
        found.append(Step(x, x, rewards.astype(np.float32), x, terminated, ended & ~terminated, valid))
        restarting = ended
    return found


def test_rewards_are_divided_by_the_standard_deviation_of_returns() -> None:
    scale, rng = RewardScale(3, GAMMA), np.random.default_rng(0)
    running, seen = np.zeros(3), []
    for step in steps(rng, 30):
        found = scale(step)
        assert found.rewards.dtype == np.float32
        for i in range(3):
            running[i] = GAMMA * running[i] + float(step.rewards[i])
            if step.valid[i]:
                seen.append(running[i])
            if step.terminated[i] or step.truncated[i]:
                running[i] = 0.0
        expected = step.rewards / np.sqrt(np.var(seen) + 1e-8)
        np.testing.assert_allclose(found.rewards, expected.clip(-10, 10), rtol=1e-4)
    restored = RewardScale(3, GAMMA)
    restored.load_state_dict(copy.deepcopy(scale.state_dict()))
    for step in steps(rng, 5):
        assert (restored(step).rewards == scale(step).rewards).all()


def test_the_scale_of_the_environment_does_not_matter() -> None:
    small, large = (RewardScale(3, GAMMA) for _ in range(2))
    for a, b in zip(*(steps(np.random.default_rng(1), 20, factor) for factor in (1.0, 500.0)), strict=True):
        np.testing.assert_allclose(small(a).rewards, large(b).rewards, rtol=1e-4, atol=1e-5)


def test_aborted_episodes_are_forgotten() -> None:
    agent = A2C(A2CConfig("CartPole-v1", normalize_rewards=True))
    agent.iterate()
    (scale,) = agent.envs.transforms
    assert scale.returns.min() > 0
    agent.envs.reset()
    assert scale.returns.max() == 0


class Magnified(Bandit):
    """The bandit with rewards of 300 instead of 1."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        return observation, 300 * reward, *rest


OPTIONS: dict[str, Any] = {"normalize_rewards": True, "normalize_advantages": True}


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


def test_ppo_divides_large_rewards_by_default() -> None:
    agent = PPO(PPOConfig(hidden=(16,), n_steps=16, gamma=0.5, lr=1e-2), envs_in(Magnified))
    for _ in range(15):
        agent.iterate()
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]
    with torch.no_grad():
        assert agent.network(torch.from_numpy(one_hot(3)))[1].abs().max() < 20


def test_saved_policies_have_the_statistics_and_evaluations_do_not_change_them(tmp_path: Path) -> None:
    options: dict[str, Any] = {"normalize_rewards": True, "normalize_observations": True, "hidden": (8,)}
    short = {"total_steps": 80, "eval_every": 80, "eval_episodes": 1, "final_episodes": 1}
    agent: Any = rl.make("ppo", "CartPole-v1", **options, **short, n_steps=8, n_envs=2, n_epochs=1)
    agent.learn()
    before = {name: x.clone() for name, x in agent.policy_state().items()}
    assert before[REWARD_MOMENTS][0] == agent.envs.steps
    agent.evaluate(2)
    assert all(torch.equal(x, before[name]) for name, x in agent.policy_state().items())
    loaded: Any = rl.load(agent.save(tmp_path / "agent.pt"))
    assert torch.equal(loaded.reward_scale.moments, before[REWARD_MOMENTS])
    loaded.learn(total_steps=16)
    assert loaded.envs.transforms == [loaded.reward_scale]
    assert (
        loaded.reward_scale.moments[0] == before[REWARD_MOMENTS][0] + loaded.envs.steps
    )  # goes on from the saved statistics
    # Another run may begin with the policy, but has its own rewards.
    begun: Any = rl.make("a2c", "CartPole-v1", extras=[InitialPolicy(str(tmp_path / "agent.pt"))], **options)
    begun.prepare()
    assert torch.equal(begun.network.critic[0].weight, agent.network.critic[0].weight)
    assert begun.reward_scale.moments[0] == 0


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_reinforce_normalizes_and_explores_by_the_steps_that_it_learns_from(mode: AutoresetMode) -> None:
    """Episodes of 1 or 3 steps: until the longest has ended, other environments begin episodes that are dropped."""
    extras = Extras.of([CountBonus(0.1), RND(0.1)])
    config = ReinforceConfig(normalize_rewards=True, hidden=(8,), extras=extras)
    agent = Reinforce(config, envs_in(Patience, mode=mode))
    learned = 0
    for _ in range(20):
        rollout = agent.play_episodes()
        learned += int(rollout.valid.sum())
    counts, rnd, scale = agent.envs.transforms
    assert learned < 0.9 * agent.envs.steps
    assert sum(counts.novelty.counts.values()) == learned
    pending = sum(int(valid.sum()) for _, valid in rnd.novelty.seen)
    assert rnd.novelty.norm.count + pending == learned
    assert scale.count == learned


def test_other_agents_refuse_it() -> None:
    for algorithm in ("a3c", "dqn"):
        with pytest.raises(UserError, match="normalize_rewards"):
            rl.make(algorithm, "CartPole-v1", normalize_rewards=True)
