"""REINFORCE, A2C, A3C's workers and PPO in small worlds, each of which reveals one kind of mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from gymnasium.vector import AutoresetMode
from policy_worlds import Alternating, Bandit, Cut, Forever, Patience, PoisonedRestarts, envs_in, one_hot

from automl_ext.rl import A2C, PPO, A2CConfig, A3CConfig, PPOConfig, Reinforce, ReinforceConfig
from automl_ext.rl.algorithms.a3c import Shared, leg
from automl_ext.rl.envs.vector import Envs

NEXT, SAME = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP
FAST: dict[str, dict[str, Any]] = {
    "a2c": {"lr": 5e-3, "optimizer": "adam", "normalize_rewards": False},
    "a3c": {"lr": 5e-3, "lr_decay": False},
    "ppo": {"n_steps": 16, "batch_size": 32, "n_epochs": 4, "lr": 1e-2, "lr_decay": False, "normalize_rewards": False},
    "reinforce": {"lr": 2e-2},
}
TOLERANCE = {"a2c": 0.3, "a3c": 0.5, "ppo": 0.4, "reinforce": 0.3}  # of values


def learner(name: str, envs: Envs, amount: int, **settings: Any) -> Any:
    """Train an agent for ``amount`` iterations, or in this process a worker of A3C for a leg of ``amount`` steps."""
    options: dict[str, Any] = {"hidden": (16,)} | FAST[name] | settings
    agent: Any
    if name == "a3c":
        agent = A2C(A3CConfig(**options), envs)
        before = agent.parameters.detach()
        beats = torch.zeros(1, dtype=torch.int64)
        shared = Shared(before.clone(), torch.zeros_like(before), mp.get_context("spawn").Value("q", 0), beats)
        leg(agent, shared, amount)
        assert amount <= shared.steps.value < amount + 8 * agent.config.n_steps + 1
        agent.parameters.data.copy_(shared.parameters)
        return agent
    if name == "a2c":
        agent = A2C(A2CConfig(**options), envs)
    elif name == "ppo":
        agent = PPO(PPOConfig(**options), envs)
    else:
        agent = Reinforce(ReinforceConfig(**options), envs)
    for _ in range(amount):
        agent.iterate()
    return agent


def values(agent: Any, states: int) -> list[float]:
    with torch.no_grad():
        return agent.network(torch.from_numpy(one_hot(states)))[1].tolist()


@pytest.mark.parametrize(
    ("name", "mode", "amount", "settings"),
    [
        ("a2c", NEXT, 150, {}),
        ("a2c", SAME, 150, {}),
        ("a3c", NEXT, 6_000, {}),
        ("ppo", NEXT, 15, {}),
        ("ppo", SAME, 15, {"value_clip": 0.2}),
        ("reinforce", NEXT, 150, {}),
        ("reinforce", SAME, 150, {"baseline": "mean"}),
    ],
)
def test_learns_the_rewarded_actions(name: str, mode: Any, amount: int, settings: dict[str, Any]) -> None:
    agent = learner(name, envs_in(Bandit, mode=mode), amount, **settings)
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("gamma", "action"), [(0.7, 0), (0.95, 1)])
@pytest.mark.parametrize(
    ("name", "mode", "amount", "settings"),
    [
        ("a2c", NEXT, 120, {}),
        ("a3c", SAME, 5_000, {}),
        ("ppo", NEXT, 15, {"gae_lambda": 1.0}),
        ("reinforce", SAME, 90, {}),
    ],
)
def test_discount_factor_decides_the_action(
    name: str, mode: Any, amount: int, settings: dict[str, Any], gamma: float, action: int
) -> None:
    envs = envs_in(Patience, mode=mode, n=16 if name == "reinforce" else 8)
    agent = learner(name, envs, amount, gamma=gamma, ent_coef=0.02, **settings)
    assert agent.act(one_hot(3))[0] == action


@pytest.mark.parametrize(
    ("name", "mode", "amount", "settings"),
    [
        ("a2c", NEXT, 125, {"lr": 2e-2}),
        ("a2c", SAME, 125, {"lr": 2e-2, "gae_lambda": 0.9}),
        ("a3c", SAME, 5_000, {"lr": 1e-2}),
        ("ppo", NEXT, 30, {}),
        ("reinforce", NEXT, 80, {}),
    ],
)
def test_truncated_episodes_bootstrap(name: str, mode: Any, amount: int, settings: dict[str, Any]) -> None:
    agent = learner(name, envs_in(Forever, mode=mode), amount, gamma=0.8, **settings)
    assert values(agent, 1)[0] == pytest.approx(
        5, abs=TOLERANCE[name]
    )  # 1 to 2.95 if truncations counted as terminations


@pytest.mark.parametrize(
    ("name", "mode", "amount", "settings", "tolerance"),
    [
        ("a2c", NEXT, 500, {"lr": 2e-2}, 0.05),
        ("a2c", SAME, 500, {"lr": 2e-2}, 0.05),
        ("ppo", SAME, 30, {}, 0.07),
    ],
)
def test_truncated_episodes_bootstrap_from_their_final_observation(
    name: str, mode: Any, amount: int, settings: dict[str, Any], tolerance: float
) -> None:
    agent = learner(name, envs_in(Cut, mode=mode), amount, gamma=0.9, **settings)
    assert values(agent, 3)[:2] == pytest.approx([0.9, 1], abs=tolerance)  # V(0) = 0.69 from the next episode


@pytest.mark.parametrize(
    ("name", "mode", "amount", "settings"),
    [
        ("a2c", NEXT, 150, {"lr": 2e-2}),
        ("a2c", SAME, 150, {"lr": 2e-2}),
        ("a3c", NEXT, 6_000, {"lr": 1e-2}),
        ("ppo", SAME, 20, {"gae_lambda": 1.0}),
        ("reinforce", NEXT, 150, {}),
    ],
)
def test_returns_stop_at_the_end_of_an_episode(name: str, mode: Any, amount: int, settings: dict[str, Any]) -> None:
    agent = learner(name, envs_in(Alternating, mode=mode), amount, gamma=0.9, **settings)
    # V(0) is at least 9 if returns include the next episode.
    assert values(agent, 3)[:2] == pytest.approx([0, 10], abs=TOLERANCE[name])


@pytest.mark.parametrize(("name", "amount"), [("a2c", 150), ("ppo", 15)])
def test_autoreset_steps_are_not_learned_from(name: str, amount: int) -> None:
    agent = learner(name, Envs(PoisonedRestarts([Bandit] * 8), 0), amount)
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]
    assert max(values(agent, 3)) < 1.5


def test_steps_after_the_first_episode_are_not_learned_from() -> None:
    """REINFORCE: episodes of one step end while others go on for three; restarts have a reward of a million."""
    agent = learner("reinforce", Envs(PoisonedRestarts([Patience] * 8), 0), 150, gamma=0.95, ent_coef=0.02)
    assert agent.act(one_hot(3))[0] == 1
    assert max(values(agent, 3)) < 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "config", "steps", "reached"),
    [(PPO, PPOConfig(seed=1), 12_000, 80), (Reinforce, ReinforceConfig(), 20_000, 60)],
)
def test_learns_cartpole(agent: Any, config: Any, steps: int, reached: float) -> None:
    """An untrained policy reaches 20. A2C: test_defaults_benchmark.py."""
    learning = agent(config)
    while learning.envs.steps < steps:
        learning.iterate()
    assert np.mean([episode.episode_return for episode in learning.envs.episodes[-20:]]) > reached
