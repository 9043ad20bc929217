"""MultiDiscrete and MultiBinary actions: their distributions, and A2C and PPO in environments with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from space_worlds import Dials, Switches, envs_of_world
from torch.distributions import Bernoulli, Categorical

from automl_ext import rl
from automl_ext.rl import A2C, PPO, A2CConfig, PPOConfig
from automl_ext.rl.extras import SelfImitation
from automl_ext.rl.loop.evaluate import play
from automl_ext.rl.networks.distributions import distribution_of
from automl_ext.training.errors import UserError

CONTEXTS = [np.array([i // 4, i // 2 % 2, i % 2]) for i in range(8)]
A2C_CONFIG = A2CConfig(hidden=(16,), optimizer="adam", lr=1e-2, n_steps=4, normalize_advantages=True, ent_coef=0.02)
PPO_CONFIG = PPOConfig(hidden=(16,), n_steps=32, n_epochs=5, batch_size=64, total_steps=5_000, lr=1e-2)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        (spaces.MultiDiscrete([3, 2, 5], start=[0, 4, -1]), [3, 2, 5]),
        (spaces.MultiDiscrete(np.array([[2, 2], [2, 2]]), dtype=np.int32), [2, 2, 2, 2]),
        (spaces.MultiBinary((2, 3)), None),
    ],
)
def test_log_probabilities_and_entropies_are_sums_over_the_actions(space: Any, parts: list[int] | None) -> None:
    distribution = distribution_of(space)
    outputs = torch.randn(40, distribution.outputs, generator=rng()).requires_grad_()
    if parts is None:
        each: list[Any] = [Bernoulli(logits=x) for x in outputs.unbind(1)]
    else:
        each = [Categorical(logits=x) for x in outputs.split(parts, 1)]
    actions = distribution.sample(outputs.detach(), rng())
    log_probs, entropy = distribution.evaluate(outputs, actions)
    assert torch.equal(log_probs, distribution.log_probs(outputs, actions))
    columns = actions.unbind(1) if parts is not None else actions.float().unbind(1)
    expected = sum(one.log_prob(a) for one, a in zip(each, columns, strict=True))
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(entropy, sum(one.entropy() for one in each))
    weights = torch.randn(40, generator=rng())
    found, wanted = (
        torch.autograd.grad((x * weights).sum() + y.sum(), outputs, retain_graph=True)[0]
        for x, y in ((log_probs, entropy), (expected, sum(one.entropy() for one in each)))
    )
    torch.testing.assert_close(found, wanted)
    likely = torch.stack([one.probs.argmax(1) if parts else one.probs > 0.5 for one in each], 1)
    assert torch.equal(distribution.mode(outputs), likely)
    assert all(space.contains(action) for action in distribution.to_env(actions.numpy()))
    many = distribution.sample(outputs[:1].detach().expand(20_000, -1), rng())
    for one, column in zip(each, many.unbind(1), strict=True):
        frequencies = column.bincount(minlength=one.probs.shape[-1]) / 20_000 if parts else column.float().mean()
        torch.testing.assert_close(frequencies, one.probs[0], atol=0.015, rtol=0)  # 4 sigma


@pytest.mark.parametrize(("agent", "config", "iterations"), [(A2C, A2C_CONFIG, 60), (PPO, PPO_CONFIG, 4)])
def test_agents_learn_every_binary_action(agent: Any, config: Any, iterations: int) -> None:
    learner = agent(config, envs_of_world(Switches))
    for _ in range(iterations):
        learner.iterate()
    found = [Switches.bits_of(learner.predict(Switches.observe(bits))[0]) for bits in CONTEXTS]
    assert np.mean(found == np.array(CONTEXTS)) > 0.9  # without one of the bits, at most 5/6


@pytest.mark.parametrize(("agent", "config", "iterations"), [(A2C, A2C_CONFIG, 60), (PPO, PPO_CONFIG, 4)])
def test_each_of_several_actions_has_its_mask(agent: Any, config: Any, iterations: int) -> None:
    Dials.invalid = 0
    learner = agent(config, envs_of_world(Dials))
    for _ in range(iterations):
        learner.iterate()
    assert play(learner.act, envs_of_world(Dials, 20, seed=3)).returns.mean() >= 3.8  # random allowed actions: 1.5
    assert Dials.invalid == 0


def test_agents_are_saved_and_imitate_themselves(tmp_path: Path) -> None:
    for world in (Dials, Switches):
        extra = SelfImitation(updates=1, batch_size=8)
        settings: dict[str, Any] = {"hidden": (8,), "total_steps": 80, "eval_every": 80, "final_episodes": 2}
        agent = rl.make("a2c", world, **settings, normalize_rewards=False, extras=[extra])
        agent.learn()
        assert rl.load(agent.save(tmp_path / "agent.pt")).spaces == agent.spaces


@pytest.mark.parametrize("algorithm", ["dqn", "bc"])
def test_other_agents_name_those_that_take_them(algorithm: str) -> None:
    with pytest.raises(UserError, match=r"action space Multi.*a2c, a3c, ppo and reinforce also .*MultiBinary"):
        rl.make(algorithm, Unmasked)


class Unmasked(Dials):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiBinary(3)

    def state(self) -> tuple[Any, dict[str, Any]]:
        return super().state()[0], {}
