"""Number of updates after a step: one burst for each multiple of the frequency that the step passes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from dqn_worlds import small
from gymnasium.vector import AutoresetMode
from policy_worlds import Bandit, Patience, envs_in

from automl_ext.rl import DQN, VDN, Reinforce, ReinforceConfig, VDNConfig
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.loop import Training, multiples

SAME = AutoresetMode.SAME_STEP  # every step is a transition


def dqn(n_envs: int, **changes: Any) -> DQN:
    settings = {"n_envs": n_envs, "hidden": (4,), "batch_size": 2, "train_freq": 4, "gradient_steps": 1}
    return DQN(small(**(settings | {"learning_starts": 0} | changes)), envs_in(Bandit, n_envs, SAME))


def test_multiples() -> None:
    for after, until, every in ((0, 4, 4), (3, 4, 4), (4, 7, 4), (0, 32, 5), (7, 7, 1), (9, 3, 2), (-1, 9, 5)):
        assert multiples(after, until, every) == sum(x % every == 0 for x in range(after + 1, until + 1))


@pytest.mark.parametrize(("starts", "updates"), [(0, 160), (100, 135), (102, 135), (1_000, 0)])
def test_dqn_updates_for_every_multiple_that_a_step_passes(starts: int, updates: int) -> None:
    agent = dqn(32, learning_starts=starts)
    while agent.envs.steps < 640:
        agent.iterate()
    assert agent.updates == updates


def test_the_loss_is_the_mean_of_all_updates_of_a_step() -> None:
    agent = dqn(32)
    losses = iter(range(1, 9))
    agent.update = lambda steps: {"loss": torch.tensor(float(next(losses)))}  # type: ignore[method-assign]
    assert float(agent.iterate()["loss"]) == 4.5


@pytest.mark.parametrize(("interval", "copies"), [(4, 160), (8, 80), (20, 32), (64, 10), (1, 160)])
def test_target_network_is_copied_between_updates(interval: int, copies: int) -> None:
    agent, seen = dqn(32, target_update_interval=interval), []
    sync = agent.sync_target
    agent.sync_target = lambda: (seen.append(agent.updates), sync())[1]  # type: ignore[method-assign]
    while agent.envs.steps < 640:
        agent.iterate()
    assert len(seen) == copies
    assert np.diff(seen).max() <= max(interval // 4, 1)  # evenly spaced: few updates between copies


@pytest.mark.parametrize(
    ("n_envs", "changes"),
    [(32, {}), (4, {"train_freq": 256, "gradient_steps": 8, "learning_starts": 100}), (1, {"learning_starts": 630})],
)
def test_beta_is_1_after_the_last_update(n_envs: int, changes: dict[str, Any]) -> None:
    agent = dqn(n_envs, total_steps=640, prioritized=True, **changes)
    while agent.envs.steps < 640:
        agent.iterate()
    assert agent.updates == agent.replay.beta_steps  # type: ignore[attr-defined]
    assert agent.replay.beta == 1  # type: ignore[attr-defined]


def dreamer(n_envs: int, **changes: Any) -> Dreamer:
    """Make an agent whose updates are counted but not computed."""
    sizes = {"deter": 4, "stoch": 2, "hidden": 4, "units": 4, "n_envs": n_envs, "train_every": 5, "pretrain": 0}
    agent = Dreamer(DreamerConfig(**(sizes | changes)), envs_in(Bandit, n_envs, SAME))

    def update(sequences: Any) -> dict[str, Any]:
        agent.updates += 1
        return {}

    agent.learn_from = update  # type: ignore[method-assign]
    return agent


@pytest.mark.parametrize(("n_envs", "prefill", "updates"), [(16, 0, 32), (16, 40, 25), (16, 43, 24), (1, 40, 25)])
def test_dreamer_updates_for_every_multiple_that_a_step_passes(n_envs: int, prefill: int, updates: int) -> None:
    agent = dreamer(n_envs, prefill=prefill)
    while agent.envs.steps < 160:
        agent.iterate()
    assert agent.updates == updates


@pytest.mark.parametrize("prefill", [0, 10])
def test_dreamer_pretrains_once_for_any_prefill(prefill: int) -> None:
    agent = dreamer(1, prefill=prefill, pretrain=30)
    counts = []
    for _ in range(4):
        agent.iterate()
        counts.append(agent.updates)
    assert counts == ([31, 32, 33, 34] if prefill == 0 else [0, 31, 32, 33])


def vdn(copies: int, **changes: Any) -> VDN:
    return VDN(VDNConfig(hidden=(4,), batch_size=2, n_envs=copies, **changes))


STARTS = [  # agents, options, and the largest total_steps without a gradient step
    (dqn, {"learning_starts": 40}, 40),
    (dqn, {"learning_starts": 43}, 40),
    (dreamer, {"prefill": 40}, 35),
    (dreamer, {"prefill": 41, "pretrain": 3}, 40),
    (vdn, {"learning_starts": 40}, 38),  # a step of one copy is two steps
]


@pytest.mark.parametrize(("build", "options", "last"), STARTS)
def test_training_without_a_gradient_step_warns(build: Any, options: dict[str, Any], last: int) -> None:
    agent = build(1, **options, total_steps=last)
    delay, value = next(iter(options.items()))
    text = f"^nothing was learned: training ended after {last} steps, .* gradient step; {delay} = {value} delays it"
    with pytest.warns(UserWarning, match=text):
        train_only(agent)
    assert agent.updates == 0
    agent = build(1, **options, total_steps=last + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_only(agent)
    assert agent.updates > 0


def train_only(agent: Agent) -> None:
    """Train without evaluations."""
    agent.envs.env_id = agent.config.env_id  # type: ignore[attr-defined]
    training = Training(agent, agent.config)  # type: ignore[attr-defined]
    training.evaluate = lambda: None  # type: ignore[method-assign]
    training.result = dict  # type: ignore[method-assign]
    training.complete()


@pytest.mark.parametrize("build", [dqn, vdn])
def test_the_result_counts_updates(build: Any) -> None:
    changes = {"learning_starts": 8, "total_steps": 40, "eval_episodes": 1, "final_episodes": 1}
    built = build(1, **changes)
    agent = type(built)(built.config)  # with the environments of its configuration, in which it is evaluated
    result = agent.learn()
    assert result["updates"] == agent.updates > 0
    again = agent.learn(8)
    assert again["updates"] == agent.updates > result["updates"]
    new = again["updates"] - result["updates"]
    assert again["updates_per_second"] == pytest.approx(new / again["seconds"])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_reinforce_learns_from_and_reports_one_episode_of_each_environment(mode: AutoresetMode) -> None:
    agent = Reinforce(ReinforceConfig(hidden=(4,)), envs_in(Patience, 8, mode))
    for update in range(1, 6):
        rollout = agent.play_episodes()
        assert rollout.valid.sum(0).unique().tolist() == [1, 3]  # some environments restart while others continue
        done = (rollout.terminated | rollout.truncated) & rollout.valid
        assert (done.sum(0) == 1).all()
        assert torch.equal(rollout.valid.sum(0), done.int().argmax(0) + 1)  # steps after the end are invalid
        assert (rollout.observations[:8] == torch.eye(3)[0]).all()  # all episodes start in state 0
        assert len(agent.envs.episodes) == 8 * update
        latest = {e.env: e.episode_return for e in agent.envs.episodes[-8:]}
        paid = (rollout.rewards * rollout.valid).sum(0)
        assert [latest[i] for i in range(8)] == paid.tolist()
