"""Transforms of steps and of batches: what they change, what they must not change, and exact resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compare_runs import newest, same_runs
from dqn_worlds import GAMMA, Fork, small
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from policy_worlds import Alternating, Bandit, envs_in, one_hot

from automl_ext import rl
from automl_ext.rl import A2C, DQN, A2CConfig
from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.loop import loop
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state

MODES = pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])


class Noise:
    """Add a random reward of mean ``mean`` to every valid step; the generator is the state."""

    def __init__(self, mean: float = 0.0, seed: int = 0) -> None:
        self.mean, self.rng = mean, np.random.default_rng(seed)

    def __call__(self, step: Step) -> Step:
        added = self.rng.normal(self.mean, size=len(step.rewards)).astype(np.float32)
        return step._replace(rewards=step.rewards + added * step.valid)

    def state_dict(self) -> dict[str, Any]:
        return numpy_generator_state(self.rng)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_numpy_generator_state(self.rng, state)


class Scaled:
    """Multiply the returns of batches by 1 + the number of batches so far, up to ``most``."""

    def __init__(self, most: int) -> None:
        self.most, self.batches = most, 0

    def __call__(self, batch: Batch) -> Batch:
        self.batches += 1
        return dataclasses.replace(batch, returns=batch.returns * min(self.batches, self.most))

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]


@MODES
def test_rewards_of_a_transform_reach_the_agent_and_no_report(mode: AutoresetMode) -> None:
    agent = A2C(A2CConfig(hidden=(16,), lr=2e-2, optimizer="adam"), envs_in(Alternating, mode=mode))
    agent.envs.transforms = [Noise(mean=3.0)]
    for _ in range(150):
        agent.iterate()
    with torch.no_grad():
        values = agent.network(torch.from_numpy(one_hot(3)))[1].tolist()
    assert values[:2] == pytest.approx([3, 13], abs=0.8)  # learned with the added 3
    assert {e.episode_return for e in agent.envs.episodes} == {0.0, 10.0}  # reported without


def test_rewards_are_divided_after_all_other_transforms() -> None:
    agent = rl.make("a2c", normalize_rewards=True, hidden=(8,))
    first, second = Noise(), Noise()
    add_transform(agent.envs, first)  # type: ignore[attr-defined]
    add_transform(agent.envs, second)  # type: ignore[attr-defined]
    assert agent.envs.transforms == [first, second, agent.reward_scale]  # type: ignore[attr-defined]


def test_evaluation_and_metrics_are_without_the_transform() -> None:
    config = A2CConfig(env_id="CartPole-v1", total_steps=1_000, eval_every=500, eval_episodes=3, final_episodes=3)
    agent = A2C(config)
    agent.envs.transforms = [Noise(mean=-1e3)]
    reports: list[Any] = []
    result = agent.learn(callback=reports.append)
    assert len(reports) == 2
    for report in reports:
        assert report.metrics["value_loss"] > 1e4  # the agent sees the added −1000 per step
        assert 8 <= report.metrics["episode_return"] == report.metrics["episode_length"]  # CartPole gives 1 per step
        assert report.eval_returns.min() >= 8
    assert result["eval_return_mean"] >= 8


def test_loaded_agent_trains_with_its_transform(tmp_path: Path) -> None:
    config = A2CConfig(env_id="CartPole-v1", total_steps=100, eval_every=100, eval_episodes=1, final_episodes=1)
    loaded = rl.load(A2C(config).save(tmp_path / "agent.pt"))
    transform: Any = Noise(mean=-1e3)
    loaded.envs.transforms = [transform]  # type: ignore[attr-defined]  # stands in until environments are made
    reports: list[Any] = []
    loaded.learn(callback=reports.append)
    assert loaded.envs.transforms == [transform]  # type: ignore[attr-defined]
    assert reports[0].metrics["value_loss"] > 1e4


@pytest.mark.slow
def test_transform_of_batches_changes_the_targets_only() -> None:
    envs = Envs(SyncVectorEnv([lambda: Fork(5)] * 4, autoreset_mode=AutoresetMode.SAME_STEP), 0)
    agent = DQN(small(), envs)
    agent.seams.batch = [Scaled(most=2)]
    while envs.steps < 2_500:
        agent.iterate()
    with torch.no_grad():
        q = agent.online(torch.eye(4)[:3]).numpy()
    v0 = 0.3 / (1 - GAMMA)
    expected = 2 * np.array([[GAMMA**2, 0.3 + GAMMA * v0], [GAMMA, GAMMA], [1.0, 1.0]])
    np.testing.assert_allclose(q, expected, atol=0.25)
    assert agent.replay.sample(500).returns.max() == 1.0  # the replay keeps the task's rewards
    assert max(e.episode_return for e in envs.episodes) < 1.61  # at best 0.3 + 0.3 + 1 in five steps


class NoisyA2C(A2C):
    def __init__(self, config: A2CConfig) -> None:
        super().__init__(config)
        self.envs.transforms = [Noise()]


class ScaledDQN(DQN):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.envs.transforms = [Noise()]
        scaled = Scaled(most=10**6)
        self.seams.batch, self.seams.parts = [scaled], {"scaled": scaled}


SHORT: dict[str, Any] = {"eval_every": 120, "eval_episodes": 2, "final_episodes": 2, "checkpoint_every": 100}
CASES: dict[str, tuple[Any, Any]] = {
    "a2c": (NoisyA2C, A2CConfig(total_steps=360, normalize_rewards=False, **SHORT)),
    "dqn": (ScaledDQN, small(total_steps=360, **SHORT)),
}


@pytest.mark.parametrize("name", CASES)
def test_resumed_run_with_transforms_equals_uninterrupted_run(name: str, tmp_path: Path) -> None:
    agent, config = CASES[name]
    loop.train(agent, config, tmp_path / "whole")
    assert loop.train(agent, config, tmp_path / "halted", stop_after=250) is None
    loop.train(agent, config, tmp_path / "halted", resume="auto")
    same_runs(tmp_path / "whole", tmp_path / "halted", {"updates_per_second"})
    whole = newest(tmp_path / "whole")[1]["agent"]
    plain = A2C(config) if name == "a2c" else DQN(config)
    wrong = (
        r"transforms: expected those of \[\], got 1" if name == "a2c" else r"extras: expected none, got \['scaled'\]"
    )
    with pytest.raises(ValueError, match=wrong):
        plain.load_state_dict(whole)


def test_state_without_a_transform_is_refused_by_an_agent_with_one() -> None:
    state = envs_in(Bandit).state_dict()
    envs = envs_in(Bandit)
    envs.transforms = [Noise()]
    with pytest.raises(ValueError, match=r"transforms: expected those of \[<.*Noise"):
        envs.load_state_dict(state)
