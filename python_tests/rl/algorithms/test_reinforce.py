"""REINFORCE: learning, the episodes of an update, and resumed runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from policy_worlds import Alternating, Bandit, Forever, Patience, PoisonedRestarts, envs_in, one_hot

from automl_ext.rl import Reinforce, ReinforceConfig
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.loop import train

MODES = pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])


def learner(envs: Envs, iterations: int, **settings: object) -> Reinforce:
    options = {"hidden": (16,), "lr": 2e-2} | settings
    agent = Reinforce(ReinforceConfig(**options), envs)  # type: ignore[arg-type]
    for _ in range(iterations):
        agent.iterate()
    return agent


def values(agent: Reinforce, states: int) -> list[float]:
    with torch.no_grad():
        return agent.network(torch.from_numpy(one_hot(states)))[1].tolist()


@MODES
@pytest.mark.parametrize("baseline", ["value", "mean"])
def test_learns_the_rewarded_actions(mode: AutoresetMode, baseline: str) -> None:
    agent = learner(envs_in(Bandit, mode=mode), 150, baseline=baseline)
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]


@MODES
@pytest.mark.parametrize(("gamma", "action"), [(0.7, 0), (0.95, 1)])
def test_discount_factor_decides_the_action(mode: AutoresetMode, gamma: float, action: int) -> None:
    agent = learner(envs_in(Patience, mode=mode, n=16), 150, gamma=gamma, ent_coef=0.02)
    assert agent.act(one_hot(3))[0] == action


def test_truncated_episodes_bootstrap_from_the_learned_value() -> None:
    agent = learner(envs_in(Forever), 150, gamma=0.8)
    with torch.no_grad():
        value = agent.network(torch.ones(1, 1))[1].item()
    assert value == pytest.approx(5, abs=0.3)  # 1 to 2.95 if truncations counted as terminations


def test_returns_stop_at_the_end_of_an_episode() -> None:
    agent = learner(envs_in(Alternating), 300, gamma=0.9)
    assert values(agent, 3)[:2] == pytest.approx([0, 10], abs=0.3)


def test_steps_after_the_first_episode_are_not_learned_from() -> None:
    """Episodes of one step end while others go on for three; restarts have a reward of a million."""
    agent = learner(Envs(PoisonedRestarts([Patience] * 8), 0), 150, gamma=0.95, ent_coef=0.02)
    assert agent.act(one_hot(3))[0] == 1
    assert max(values(agent, 3)) < 2


@MODES
def test_an_update_uses_one_episode_of_each_environment(mode: AutoresetMode) -> None:
    agent = learner(envs_in(Patience, mode=mode), 0)
    for _ in range(5):
        rollout = agent.play_episodes()
        done = (rollout.terminated | rollout.truncated) & rollout.valid
        assert (done.sum(0) == 1).all()
        first = done.int().argmax(0)
        assert torch.equal(rollout.valid.sum(0), first + 1)  # steps after the end are invalid
        assert (rollout.observations[:8] == torch.from_numpy(one_hot(3)[:1])).all()  # all episodes start at step 0


def test_resumed_run_equals_uninterrupted_run(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = ReinforceConfig(total_steps=4_000, eval_every=2_000, eval_episodes=3, final_episodes=3)
    whole = train(Reinforce, config, tmp_path / "whole")
    assert train(Reinforce, config, tmp_path / "halted", stop_after=1_500) is None
    halted = train(Reinforce, config, tmp_path / "halted", resume="auto")
    assert whole is not None
    assert halted is not None
    for name in ("eval_return_mean", "best_eval_return", "env_steps"):
        assert whole[name] == halted[name]
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "halted/metrics.jsonl").read_text()


def test_learns_cartpole() -> None:
    agent = Reinforce(ReinforceConfig())
    while agent.envs.steps < 20_000:
        agent.iterate()
    returns = [episode.episode_return for episode in agent.envs.episodes]
    assert np.mean(returns[-20:]) > 60  # an untrained policy reaches 20
