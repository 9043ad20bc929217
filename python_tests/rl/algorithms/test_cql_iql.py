"""CQL and IQL: their losses, and what they learn from the episodes of bad policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_worlds import Corridor, corridor_values, walks

from automl_ext import rl
from automl_ext.rl.algorithms.cql import conservative_loss
from automl_ext.rl.algorithms.iql import expectile_loss, weighted_cloning_loss
from automl_ext.rl.networks.body import RunningNorm

GAMMA = 0.9
FAST: dict[str, Any] = {
    **{"hidden": (32,), "lr": 5e-3, "eval_every": 400, "eval_episodes": 2, "final_episodes": 2, "gamma": GAMMA},
    **{"total_steps": 400, "batch_size": 128},
}


def trained(name: str, right: float, **options: Any) -> Any:
    agent = rl.make(name, Corridor, **{**FAST, **options})
    agent.set_episodes(walks(right, episodes=150))
    agent.result = agent.learn()
    return agent


def test_the_conservative_loss_is_cross_entropy_of_the_recorded_actions() -> None:
    q = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    actions = torch.arange(7) % 4
    loss = conservative_loss(q, actions)
    expected = -np.log(np.exp(q.detach().numpy())[range(7), actions] / np.exp(q.detach().numpy()).sum(1)).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, q)
    np.testing.assert_allclose(gradient, (q.softmax(1) - torch.eye(4)[actions]).detach() / 7, rtol=1e-12)


@pytest.mark.parametrize("expectile", [0.2, 0.5, 0.9])
def test_the_expectile_balances_weighted_distances(expectile: float) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    center = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(expectile_loss(x - center, expectile), center)
        center.data -= gradient
    above, below = (x - center).clamp(min=0).sum(), (center - x).clamp(min=0).sum()
    assert (expectile * above).item() == pytest.approx(((1 - expectile) * below).item(), rel=1e-6)
    if expectile == 0.5:
        assert center.item() == pytest.approx(x.mean().item())


def test_good_actions_weigh_more() -> None:
    log_probs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    advantages = torch.tensor([0.5, -0.5, 50.0], requires_grad=True)
    loss = weighted_cloning_loss(log_probs, advantages, 2.0)
    weights = np.array([np.exp(1.0), np.exp(-1.0), 100.0])
    assert loss.item() == pytest.approx((weights * [1, 2, 3]).mean(), rel=1e-6)
    gradients = torch.autograd.grad(loss, (log_probs, advantages), allow_unused=True)
    np.testing.assert_allclose(gradients[0], -weights / 3, rtol=1e-6)
    assert gradients[1] is None  # the critic does not learn from the policy's loss


def test_without_its_term_cql_learns_the_optimal_values() -> None:
    agent = trained("cql", 0.5, conservative_weight=0.0, target_update_interval=20)
    with torch.no_grad():
        q = agent.online(torch.eye(5)[1:4]).numpy()
    v = GAMMA ** np.array([2, 1, 0])
    expected = np.stack([[0.2, GAMMA * v[0], GAMMA * v[1]], v], 1)  # left, right
    np.testing.assert_allclose(q, expected, atol=0.05)


def test_conservative_q_learning_keeps_to_the_actions_of_the_data() -> None:
    """The data go right only. Whatever the networks start with, going left gets a lower value."""
    agent = trained("cql", 1.0, target_update_interval=20)
    with torch.no_grad():
        q = agent.online(torch.eye(5)[1:4]).numpy()
    assert (q[:, 0] < q[:, 1] - 1).all()
    assert agent.result["eval_return_mean"] == 1.0


@pytest.mark.parametrize("name", ["cql", "iql"])
def test_better_than_the_policy_of_the_data(name: str) -> None:
    """Two of three recorded steps go left, to the small reward."""
    options: dict[str, Any] = {"conservative_weight": 0.1, "target_update_interval": 20}
    if name == "iql":
        options = {"beta": 10.0, "polyak": 0.05}
    assert trained(name, 0.35, **options).result["eval_return_mean"] == 1.0


def test_the_clone_is_as_bad_as_the_policy_of_the_data() -> None:
    assert trained("bc", 0.35, total_steps=100).result["eval_return_mean"] == pytest.approx(0.2)


@pytest.mark.slow
def test_with_expectile_one_half_iql_evaluates_the_policy_of_the_data() -> None:
    values = {}
    for expectile in (0.5, 0.95):
        agent = trained("iql", 0.5, expectile=expectile, polyak=0.1)
        with torch.no_grad():
            values[expectile] = agent.network(torch.eye(5)[1:4])[1].numpy()
    np.testing.assert_allclose(values[0.5], corridor_values(walks(0.5, 150), GAMMA), atol=0.05)
    assert (values[0.95] > values[0.5] + 0.05).all()
    assert (values[0.95] < GAMMA ** np.array([2, 1, 0]) + 0.05).all()  # at most optimal


def test_normalization_is_of_the_episodes_set_last() -> None:
    agents = [rl.make("cql", Corridor, **{**FAST, "normalize_observations": True}) for _ in range(2)]
    agents[0].set_episodes(walks(0.1, episodes=5))  # type: ignore[attr-defined]
    for agent in agents:
        agent.set_episodes(walks(0.9, episodes=20))  # type: ignore[attr-defined]
    first, second = (agent.policy_state() for agent in agents)
    assert any(name.endswith("variance") for name in first)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)


@pytest.mark.parametrize("name", ["iql", "cql"])
def test_every_network_of_a_loaded_agent_normalizes(name: str, tmp_path: Path) -> None:
    agent = rl.make(name, Corridor, normalize_observations=True, **FAST)
    agent.set_episodes(walks(0.5, episodes=20))  # type: ignore[attr-defined]
    agent.save(tmp_path / "agent.pt")
    loaded: Any = rl.load(tmp_path / "agent.pt")
    loaded.set_episodes(walks(0.5, episodes=20))
    modules = [module for network in loaded.networks.values() for module in network.modules()]
    counts = [module.count.item() for module in modules if isinstance(module, RunningNorm)]
    assert len(counts) >= 2
    assert len({*counts}) == 1
    assert counts[0] > 0


def test_training_ends_and_is_evaluated_at_the_given_steps() -> None:
    agent = rl.make("bc", Corridor, **FAST | {"total_steps": 15, "eval_every": 5})
    agent.set_episodes(walks(0.5, episodes=20))  # type: ignore[attr-defined]
    seen: list[int] = []
    agent.learn(callback=lambda report: seen.append(report.step))
    assert seen == [5, 10, 15]
    assert agent.envs.steps == 15
