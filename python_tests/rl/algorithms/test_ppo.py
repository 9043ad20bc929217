"""PPO: minibatches, schedules, terms of the loss, and the end of the passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from policy_worlds import Alternating, Bandit, envs_in, one_hot, rollout_of

import automl_ext
from automl_ext import rl
from automl_ext.rl import PPO, PPOConfig, RainbowConfig
from automl_ext.rl.algorithms import ppo
from automl_ext.rl.algorithms.ppo import normalized
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.seams import Acted
from automl_ext.rl.presets import PRESETS, preset

SMALL = {"hidden": (16,), "n_steps": 16, "batch_size": 32, "n_epochs": 4, "lr": 1e-2, "lr_decay": False}
SMALL |= {"normalize_rewards": False}  # so that values have the unit of the rewards


def learner(envs: Envs, iterations: int, **settings: Any) -> PPO:
    agent = PPO(PPOConfig(**{**SMALL, "clip_decay": False, **settings}), envs)
    for _ in range(iterations):
        agent.iterate()
    return agent


def test_minibatches_contain_every_step_once() -> None:
    agent = learner(envs_in(Bandit), 0, batch_size=30, n_epochs=2)
    n = len(agent.transitions(rollout_of(agent, 16)).actions)
    batches = list(agent.minibatches(n))
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    sizes = [len(rows) for rows in first]
    assert max(sizes) <= 30
    assert max(sizes) - min(sizes) <= 1
    orders = [torch.cat(batches).tolist() for batches in (first, second)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(n))
    assert orders[0] != orders[1]


def test_the_advantages_of_a_minibatch_are_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = learner(envs_in(Bandit), 0, batch_size=30)
    steps, batches = agent.transitions(rollout_of(agent, 16)), []
    loss = agent.loss
    monkeypatch.setattr(agent, "loss", lambda batch, clip: batches.append(batch) or loss(batch, clip))
    rows = torch.arange(7, 30)
    agent.step(steps, rows, 0.2, math.inf)
    assert torch.equal(batches[0].returns, steps.returns[rows])
    expected = normalized(steps.advantages[rows])
    torch.testing.assert_close(batches[0].advantages, expected)
    assert abs(float(expected.mean())) < 1e-6


def test_a_minibatch_of_any_size_is_at_most_the_rollout() -> None:
    agent = learner(envs_in(Bandit), 0, batch_size=10**400, n_epochs=2)
    assert list(agent.minibatches(64)) == [None, None]  # all rows


def test_learning_rate_and_clip_range_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = learner(envs_in(Bandit, mode=AutoresetMode.SAME_STEP), 0, total_steps=512, lr_decay=True, clip_decay=True)
    clips = []
    loss = agent.loss
    monkeypatch.setattr(agent, "loss", lambda batch, clip: clips.append(clip) or loss(batch, clip))
    rates = []
    for _ in range(4):
        agent.iterate()
        rates.append(agent.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 0.75e-2, 0.5e-2, 0.25e-2])
    assert clips[:: len(clips) // 4] == pytest.approx([0.2, 0.15, 0.1, 0.05])
    before = agent.parameters.detach().clone()
    agent.iterate()  # after total_steps
    assert torch.equal(agent.parameters, before)


class Record:
    """A term of the loss that moves the policy toward action 0."""

    def __init__(self) -> None:
        self.steps = 0

    def loss(self, network: torch.nn.Module, batch: Acted) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert batch.weights is None  # all steps of a minibatch are transitions
        term = -10 * network(batch.observations)[0].log_softmax(-1)[:, 0].mean()
        return term, {"toward": term.detach()}

    def step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def test_terms_are_part_of_the_loss_of_every_minibatch() -> None:
    agent, term = learner(envs_in(Bandit), 0), Record()
    agent.seams.terms, agent.seams.parts = [term], {"record": term}
    measured = [agent.iterate() for _ in range(5)]
    assert term.steps == 5 * 4 * 2  # four epochs of two minibatches: half of the 128 steps are restarts
    assert float(measured[-1]["toward"]) < float(measured[0]["toward"])
    assert agent.act(one_hot(3)).tolist() == [0, 0, 0]
    assert agent.state_dict()["extras"] == {"record": {"steps": term.steps}}


class Cells(Bandit):
    """The bandit, observed as a small image."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, (4, 4, 3), bool)

    def observe(self) -> np.ndarray:
        return np.tile(np.eye(3, dtype=bool)[self.state], (4, 4, 1))


def test_images() -> None:
    agent = learner(envs_in(Cells), 15)
    assert agent.act(np.stack([np.tile(np.eye(3, dtype=bool)[i], (4, 4, 1)) for i in range(3)])).tolist() == [0, 1, 2]


def test_a_rollout_of_restarts_only_changes_nothing() -> None:
    agent = learner(envs_in(Alternating), 0, n_steps=1)
    measured = [agent.iterate() for _ in range(4)]
    assert [bool(x) for x in measured] == [True, False, True, False]


def test_a_single_step_has_no_normalized_advantage() -> None:
    for options in ({"n_steps": 1, "n_envs": 1}, {"batch_size": 1}):
        with pytest.raises(ValueError, match=r"to be at least 2, got 1|batch_size: expected at least 2, got 1"):
            PPOConfig(**options)


def test_presets() -> None:
    assert preset("cartpole-zoo", PPOConfig()).gae_lambda == 0.8
    assert preset("lunarlander", PPOConfig()).n_envs == 16
    assert rl.make("ppo", preset="lunarlander", env="Pendulum-v1").config.n_steps == 1024
    of_ppo = {name: preset(name, PPOConfig()) for name in PRESETS["PPOConfig"]}
    assert {name for name, config in of_ppo.items() if config.normalize_rewards} == {
        "hopper",
        "walker2d",
        "halfcheetah",
    }
    assert preset("hopper", PPOConfig()).normalize_observations
    atari = preset("atari", PPOConfig())
    assert (atari.n_envs * atari.n_steps, atari.batch_size, atari.n_epochs, atari.clip_range) == (1024, 256, 4, 0.1)
    assert atari.env == preset("atari", RainbowConfig()).env
    assert atari.env.terminal_on_life_loss


def test_passes_end_when_the_policy_has_moved_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for target in (None, 1e9, 5e-4):
        agent = PPO(PPOConfig(hidden=(16,), n_steps=32, n_epochs=5, batch_size=64, lr=3e-3, target_kl=target))
        metrics = agent.iterate()
        found.append((int(agent.optimizer.state[agent.parameters]["step"]), float(metrics["kl"])))
    assert found[0] == found[1]
    assert found[0][0] == 5 * 4  # minibatches
    assert 1 < found[2][0] < 20
    assert found[2][1] < found[0][1]
    monkeypatch.setattr(ppo, "kl_estimate", lambda log_ratio: log_ratio.sum() * 0 + 1)
    agent = PPO(PPOConfig(hidden=(16,), n_steps=32, target_kl=2e-3))
    with automl_ext.backend("reference"):
        agent.iterate()
    assert int(agent.optimizer.state[agent.parameters]["step"]) == 1  # the first minibatch is never left out
    with pytest.raises(ValueError, match=r"target_kl: expected .*above 0"):
        PPOConfig(target_kl=0.0)
