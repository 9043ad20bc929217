"""The losses of the algorithms: pure functions, compared with plain formulas and with finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from policy_worlds import Bandit, Patience, envs_in
from torch import Tensor

from automl_ext.rl import A2C, DQN, PPO, A2CConfig, DQNConfig, PPOConfig, Reinforce, ReinforceConfig
from automl_ext.rl.algorithms.bc import bc_loss
from automl_ext.rl.algorithms.dqn import categorical_loss, q_loss
from automl_ext.rl.algorithms.ppo import Transitions, normalized
from automl_ext.rl.algorithms.qmix import Monotonic
from automl_ext.rl.algorithms.vdn import Sum, TeamNetwork, vdn_loss
from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.rl.envs.vector import NoEnvs
from automl_ext.rl.loop.policy_agent import standardized
from automl_ext.rl.replay.uniform import Batch

SPACE = Box(-1, 1, (3,), np.float32)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return float64 numbers, for finite differences."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def check_gradient(loss: Callable[[Tensor], Tensor], x: Tensor, expected: Tensor | None = None) -> None:
    """Compare the gradient of a loss with central differences, and with a formula."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    with torch.no_grad():
        steps = 1e-6 * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
        differences = torch.stack([(loss(x + step) - loss(x - step)) / 2e-6 for step in steps]).view_as(x)
    torch.testing.assert_close(gradient, differences, rtol=1e-5, atol=1e-8)
    if expected is not None:
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("ent_coef", [0.0, 0.3])
@pytest.mark.parametrize("baseline", ["a2c", "value", "mean"])
def test_losses_of_policy_gradients(baseline: Any, ent_coef: float) -> None:
    """The loss of A2C, and of REINFORCE with both baselines, is the mean over the transitions of a rollout."""
    options: dict[str, Any] = {"hidden": (8,), "ent_coef": ent_coef, "normalize_rewards": False}
    agent: A2C | Reinforce
    if baseline == "a2c":
        agent = A2C(A2CConfig(**options), envs_in(Bandit))
        rollout = agent.rollout()
    else:
        agent = Reinforce(ReinforceConfig(**options, baseline=baseline), envs_in(Patience))
        rollout = agent.play_episodes()
    valid = rollout.valid.flatten()
    assert not valid.all()
    outputs, values = (x.detach()[valid] for x in agent.network(rollout.acted))
    if isinstance(agent, A2C):
        advantages, returns = (x[valid] for x in agent.targets(rollout))
    else:
        later, found_returns = torch.zeros(rollout.rewards.shape[1]), []
        for reward, is_transition in zip(rollout.rewards.flip(0), rollout.valid.flip(0), strict=True):
            later = torch.where(is_transition, reward + 0.99 * later, 0)
            found_returns.append(later)
        returns = torch.stack(found_returns[::-1]).flatten()[valid]
        advantages = returns - (values if baseline == "value" else returns.mean())
    logs = outputs.log_softmax(-1)
    log_probs = logs.gather(1, rollout.actions[valid].unsqueeze(1)).squeeze(1)
    expected = {
        "policy_loss": -(advantages * log_probs).mean().item(),
        "value_loss": (returns - values).square().mean().item(),
        "entropy": -(logs.exp() * logs).sum(1).mean().item(),
    }
    if baseline == "mean":  # nothing learns a value
        del expected["value_loss"]
    found, metrics = agent.loss(rollout)
    total = expected["policy_loss"] + 0.5 * expected.get("value_loss", 0) - ent_coef * expected["entropy"]
    assert found.item() == pytest.approx(total, rel=1e-4)
    assert {name: x.item() for name, x in metrics.items()} == pytest.approx(expected, rel=1e-4)


def test_the_clipped_objective_of_ppo() -> None:
    agent = PPO(PPOConfig(hidden=(8,), ent_coef=0.2), NoEnvs(SPACE, Discrete(2), 8))  # type: ignore[arg-type]
    observations, actions = random(40, 3).float(), torch.arange(40) % 2
    returns, advantages = random(2, 40, seed=1).float()
    with torch.no_grad():
        outputs, values = agent.network(observations)
    logs = outputs.log_softmax(-1)
    new = logs[torch.arange(40), actions]
    old = new + 0.4 * random(40, seed=2).float()
    found, metrics = agent.loss(Transitions(observations, actions, old, values, advantages, returns), 0.3)
    objectives = []
    for log_prob, log_old, advantage in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(log_prob - log_old)
        objectives.append(min(ratio * advantage, max(min(ratio, 1.3), 0.7) * advantage))
    expected = {
        "policy_loss": -np.mean(objectives),
        "value_loss": (returns - values).square().mean().item(),
        "entropy": -(logs.exp() * logs).sum(1).mean().item(),
    }
    assert {name: x.item() for name, x in metrics.items()} == pytest.approx(expected, rel=1e-4)
    total = expected["policy_loss"] + 0.5 * expected["value_loss"] - 0.2 * expected["entropy"]
    assert found.item() == pytest.approx(total, rel=1e-4)


def test_the_clipped_value_loss_of_ppo() -> None:
    agent = PPO(PPOConfig(hidden=(8,), value_clip=0.3), NoEnvs(SPACE, Discrete(2), 8))  # type: ignore[arg-type]
    observations, actions = random(40, 3).float(), torch.arange(40) % 2
    with torch.no_grad():
        v = agent.network(observations)[1]
    old, returns = v + random(40, seed=1).float(), v + random(40, seed=2).float()
    _, metrics = agent.loss(Transitions(observations, actions, torch.zeros(40), old, returns - old, returns), 0.2)
    expected = []
    for value, before, target in zip(v.tolist(), old.tolist(), returns.tolist(), strict=True):
        limited = before + max(min(value - before, 0.3), -0.3)
        expected.append(max((target - value) ** 2, (target - limited) ** 2))
    assert metrics["value_loss"].item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_normalized_advantages() -> None:
    x = random(50) * 7 + 3
    expected = (x - x.mean()) / x.std(correction=0)
    torch.testing.assert_close(normalized(x), expected)
    torch.testing.assert_close(standardized(x, torch.full_like(x, 1 / 50)), expected)
    padded, weights = torch.cat([x, random(9) * 1e6]), torch.full((59,), 1 / 50, dtype=x.dtype)
    weights[50:] = 0
    torch.testing.assert_close(standardized(padded, weights)[:50], expected)
    assert normalized(torch.ones(4)).tolist() == [0, 0, 0, 0]


def test_the_loss_of_behavior_cloning() -> None:
    log_probs, values, returns = random(3, 11)
    found, metrics = bc_loss(log_probs, values, returns, 0.4)
    cloned = -sum(log_probs.tolist()) / 11
    squared = sum((g - v) ** 2 for g, v in zip(returns.tolist(), values.tolist(), strict=True)) / 11
    assert found.item() == pytest.approx(cloned + 0.4 * squared)
    assert {name: x.item() for name, x in metrics.items()} == pytest.approx(
        {"policy_loss": cloned, "value_loss": squared}
    )
    check_gradient(lambda x: bc_loss(x, values, returns, 0.4)[0], log_probs, torch.full_like(log_probs, -1 / 11))
    check_gradient(lambda x: bc_loss(log_probs, x, returns, 0.4)[0], values, -0.8 * (returns - values) / 11)


def batch_of(n: int) -> Batch:
    terminated = torch.arange(n) % 3 == 0
    generator = torch.Generator().manual_seed(7)
    return Batch(
        observations=torch.randn(n, 3, generator=generator),
        actions=torch.randint(4, (n,), generator=generator),
        returns=torch.randn(n, generator=generator),
        next_observations=torch.randn(n, 3, generator=generator),
        discounts=torch.where(terminated, 0.0, torch.rand(n, generator=generator)),
        terminated=terminated,
        weights=torch.rand(n, generator=generator),
        indices=torch.arange(n),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_huber_loss_of_q_learning(weighted: bool) -> None:
    batch = batch_of(40)
    weights = batch.weights.double() if weighted else None
    q, targets = 2 * random(40, 4), batch.returns.double()
    loss, errors = q_loss(q, batch.actions, targets, weights)
    total = 0.0
    for i in range(40):
        delta = abs(q[i, batch.actions[i]].item() - targets[i].item())
        assert errors[i].item() == pytest.approx(delta)
        huber = 0.5 * delta**2 if delta < 1 else delta - 0.5
        total += huber * (batch.weights[i].item() if weighted else 1.0)
    assert loss.item() == pytest.approx(total / 40)
    assert errors.min() < 1 < errors.max()
    check_gradient(lambda x: q_loss(x, batch.actions, targets, weights)[0], q)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_categorical_loss_is_a_divergence(weighted: bool) -> None:
    batch = batch_of(6)
    weights = batch.weights.double() if weighted else None
    logits, targets = random(6, 4, 5), random(6, 5, seed=1).softmax(-1)
    targets[0] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])  # 0 log 0 is 0
    loss, errors = categorical_loss(logits, batch.actions, targets, weights)
    total = 0.0
    for i in range(6):
        p = logits[i, batch.actions[i]].softmax(-1)
        kl = sum(t * (math.log(t) - math.log(x)) for t, x in zip(targets[i].tolist(), p.tolist(), strict=True) if t > 0)
        assert errors[i].item() == pytest.approx(kl)
        total += kl * (batch.weights[i].item() if weighted else 1.0)
    assert loss.item() == pytest.approx(total / 6)
    check_gradient(lambda x: categorical_loss(x, batch.actions, targets, weights)[0], logits)


def dqn(seed: int = 0, **options: object) -> DQN:
    """Return an agent of four actions, without environments."""
    return DQN(DQNConfig(hidden=(16,), seed=seed, **options), NoEnvs(SPACE, Discrete(4), 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("double", [False, True])
def test_targets_of_q_learning(double: bool) -> None:
    """The two networks differ, so that using the wrong network for a value or a choice is detected."""
    agent = dqn(double=double)
    agent.target.load_state_dict(dqn(seed=1).online.state_dict())
    batch = batch_of(60)
    with torch.no_grad():
        online, target = agent.online(batch.next_observations), agent.target(batch.next_observations)
    assert (online.argmax(1) != target.argmax(1)).any()
    for i, y in enumerate(agent.targets(batch).tolist()):
        best = (online if double else target)[i].argmax()
        expected = batch.returns[i] + (0 if batch.terminated[i] else batch.discounts[i] * target[i, best])
        assert y == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_distributional_targets_keep_their_mass_and_mean(double: bool) -> None:
    agent, other = (dqn(seed, double=double, distributional=True, v_min=-20, v_max=20) for seed in (0, 1))
    agent.target.load_state_dict(other.online.state_dict())
    batch = batch_of(60)
    batch.discounts *= 0.8  # all targets are within the range of the atoms
    with torch.no_grad():
        online, target = (
            network.q(network(batch.next_observations), batch.next_observations)
            for network in (agent.online, agent.target)
        )
    targets = agent.targets(batch)
    torch.testing.assert_close(targets.sum(1), torch.ones(60))
    best = (online if double else target).argmax(1, keepdim=True)
    expected = batch.returns + batch.discounts * target.gather(1, best).squeeze(1)
    torch.testing.assert_close(targets @ agent.online.support, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("largest", "clipped"), [(1e-3, True), (1e9, False)])
def test_the_gradient_of_q_learning_is_clipped_to_its_norm(largest: float, clipped: bool) -> None:
    agent, batch = dqn(max_grad_norm=largest), batch_of(8)
    loss, _ = q_loss(agent.online(batch.observations), batch.actions, batch.returns)
    norm = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(agent.online.parameters()))]).norm()
    agent.step(batch, batch.returns)
    assert agent.parameters.grad is not None
    assert agent.parameters.grad.norm().item() == pytest.approx(largest if clipped else norm.item(), rel=1e-2)


@pytest.mark.parametrize("qmix", [False, True])
def test_the_loss_of_a_team(qmix: bool) -> None:
    """Two agents with three own observations and a one-hot vector each."""
    space, n = GroupedBox((3 + 2,), np.float32, ("a", "b")), 12
    torch.manual_seed(0)
    online, target = (TeamNetwork(space, 4, (6,), Monotonic(2, 6, 5) if qmix else Sum()) for _ in range(2))
    one_hot = torch.eye(2).expand(n, 2, 2)
    observations, following = (torch.cat([torch.randn(n, 2, 3), one_hot], 2) for _ in range(2))
    terminated = torch.arange(n) % 4 == 0
    discounts = torch.where(terminated, 0.0, 0.7)
    actions, returns = torch.randint(4, (n, 2)), torch.randn(n)
    batch = Batch(observations, actions, returns, following, discounts, terminated, torch.ones(n), torch.arange(n))
    total = 0.0
    for i in range(n):
        q, next_online, next_target = online(observations[i]), online(following[i]), target(following[i])
        chosen = torch.stack([q[a, actions[i, a]] for a in range(2)])
        best = torch.stack([next_target[a, next_online[a].argmax()] for a in range(2)])
        y = returns[i] + (0 if i % 4 == 0 else 0.7 * target.total(best[None], following[i : i + 1])[0])
        total += float(online.total(chosen[None], observations[i : i + 1])[0] - y) ** 2
    loss = vdn_loss(online, target, batch)
    assert loss.item() == pytest.approx(total / n, rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in target.parameters())  # the targets are constants
    assert all(p.grad is not None for p in online.agents.parameters())
