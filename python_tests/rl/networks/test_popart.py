"""PopArt: values are preserved, statistics, and learning of rewards of different scales."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_worlds import World, rollout_of

from automl_ext.rl import A2C, PPO, A2CConfig, PPOConfig
from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.networks.popart import LARGEST, RATE, SMALLEST, PopArt


def test_values_do_not_change_when_the_statistics_do() -> None:
    torch.manual_seed(0)
    head = PopArt(8).double()
    x = torch.randn(50, 8, dtype=torch.float64)
    before = head(x).detach()
    for scale, shift in [(1e3, -5e3), (1e-2, 7), (1, 0), (40, 1e4)]:
        head.update(scale * torch.randn(20) + shift)
        assert abs(float(head.mean)) > 1  # the statistics have changed
        torch.testing.assert_close(head(x), before, rtol=1e-9, atol=1e-9)


def test_statistics_are_running_moments_without_their_initial_values() -> None:
    rng, head = np.random.default_rng(0), PopArt(2)
    batches = [rng.normal(i, 3 + i, size=9) for i in range(4)]
    for batch in batches:
        head.update(torch.from_numpy(batch))
    weights = np.array([(1 - RATE) ** (3 - i) for i in range(4)])
    weights /= weights.sum()
    mean = sum(w * x.mean() for w, x in zip(weights, batches, strict=True))
    square = sum(w * (x**2).mean() for w, x in zip(weights, batches, strict=True))
    assert float(head.mean) == pytest.approx(mean, rel=1e-5)
    assert float(head.sigma) == pytest.approx((square - mean**2) ** 0.5, rel=1e-5)
    unchanged = copy.deepcopy(head.state_dict())
    head.update(torch.zeros(0))
    assert all(torch.equal(unchanged[name], x) for name, x in head.state_dict().items())


@pytest.mark.parametrize(("mean", "std"), [(100.0, 0.03), (1000.0, 0.3), (-1e4, 1.0)])
def test_a_small_deviation_beside_a_large_mean_is_exact(mean: float, std: float) -> None:
    """The mean is stored as float32, whose rounding must neither change the deviation nor stop the mean."""
    generator = torch.Generator().manual_seed(0)
    head, x = PopArt(4), torch.randn(16, 4, generator=generator)
    for step in range(1500):
        before = head(x).detach()
        head.update(mean * (1 if step < 300 else 1.001) + std * torch.randn(512, generator=generator))
        assert (head(x) - before).abs().max() <= 1e-6 * abs(mean)
        if 100 <= step < 300 or step == 1499:  # 0.99 ** 1200 of the old mean's weight is left at the end
            assert float(head.sigma) == pytest.approx(std, rel=0.02)
    assert float(head.mean) == pytest.approx(1.001 * mean, rel=1e-5)


def test_sigma_is_bounded() -> None:
    head = PopArt(1)
    head.update(torch.full((5,), 2.0))
    assert float(head.sigma) == pytest.approx(SMALLEST)
    head.update(torch.tensor([1e12, -1e12]))
    assert float(head.sigma) == LARGEST


class Cents(World):
    """The reward is 0.01 if the action equals the state."""

    states, actions, unit = 2, 2, 0.01

    def first(self) -> int:
        return int(self.np_random.integers(2))

    def move(self, action: int) -> tuple[float, bool, bool]:
        return self.unit * (action == self.state), True, False


class Thousands(Cents):
    """The reward is 1000 if the action differs from the state."""

    unit = 1000.0

    def move(self, action: int) -> tuple[float, bool, bool]:
        return super().move(1 - action)


def learner(popart: bool, updates: int, kind: type = A2C) -> A2C | PPO:
    tasks = f"{env_id_of(Cents)},{env_id_of(Thousands)}"
    options = {"n_envs": 4, "separate": "heads", "popart": popart, "hidden": (16,)}
    if kind is PPO:
        agent = PPO(PPOConfig(tasks, **options, n_epochs=4, lr=1e-2))
    else:
        agent = A2C(A2CConfig(tasks, **options, lr=2e-2, optimizer="adam"))
    for _ in range(updates):
        agent.iterate()
    return agent


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "updates"), [(A2C, 160), (PPO, 25)])
def test_learns_tasks_whose_rewards_differ_by_five_orders_of_magnitude(kind: type, updates: int) -> None:
    observations = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1]], dtype=torch.float32)

    def correct(agent: A2C | PPO) -> torch.Tensor:
        """The probability of the better action, [4]."""
        return agent.network(observations)[0].softmax(-1)[torch.arange(4), torch.tensor([0, 1, 1, 0])]

    agent = learner(True, updates, kind)
    assert (correct(agent) > 0.9).all()
    values = agent.network(observations)[1]
    assert (values[:2] < 0.05).all()
    assert (values[2:] > 500).all()
    if kind is A2C:  # without PopArt, cents have no effect beside thousands
        assert (correct(learner(False, updates, kind))[:2] < 0.9).all()


def test_loss_is_that_of_normalized_values_and_advantages() -> None:
    agent = learner(True, 3)
    rollout = rollout_of(agent, 4)
    acted = len(rollout.actions)
    with torch.no_grad():
        outputs, values = agent.network(rollout.observations)
    advantages, returns = agent.targets(rollout)
    _, metrics = agent.loss(rollout)  # which updates the statistics first; the values remain the same
    sigma = torch.tensor([float(head.sigma) for head in agent.network.value_heads.each]).repeat(acted // 2)
    log_probs = outputs[:acted].log_softmax(-1)[torch.arange(acted), rollout.actions]
    assert float(metrics["policy_loss"]) == pytest.approx(-float((log_probs * advantages / sigma).mean()), rel=1e-4)
    errors = ((returns - values[:acted]) / sigma).square().mean()
    assert float(metrics["value_loss"]) == pytest.approx(float(errors), rel=1e-4)


def test_values_are_clipped_in_units_of_their_standard_deviation() -> None:
    """PPO's ``value_clip`` means the same for tasks whose rewards differ by orders of magnitude."""
    agent = learner(True, 3, PPO)
    agent.config = replace(agent.config, value_clip=0.2)
    steps = agent.transitions(rollout_of(agent, 8))
    with torch.no_grad():
        values, sigma = agent.network(steps.observations)[1], agent.network.sigma(steps.observations)
    assert sigma.max() > 1_000 * sigma.min()
    old, returns = values - sigma, values + sigma * torch.linspace(-2, 2, len(values))
    _, metrics = agent.loss(steps._replace(values=old, returns=returns), 0.2)
    normalized = torch.linspace(-2, 2, len(values))  # returns − values; the clipped values are 0.8 below the new ones
    expected = torch.maximum(normalized.square(), (normalized + 0.8).square()).mean()
    assert float(metrics["value_loss"]) == pytest.approx(float(expected), rel=1e-3)
