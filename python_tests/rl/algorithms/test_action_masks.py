"""Action masks: excluded actions have probability 0 in acting, in losses and in targets, and never reach the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from space_worlds import Masked, MaskedByKey, envs_of_world

from automl_ext import rl
from automl_ext.rl import A2C, DQN, PPO, A2CConfig, DQNConfig, PPOConfig
from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.packed import PackedBox
from automl_ext.rl.envs.vector import Envs, NoEnvs
from automl_ext.rl.extras import CountBonus
from automl_ext.rl.loop.evaluate import play
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
Q_LEARNING: dict[str, Any] = {"hidden": (32,), "n_envs": 8, "learning_starts": 100, "train_freq": 32, "lr": 3e-3}
Q_LEARNING |= {"gradient_steps": 8, "total_steps": 3_000}
RAINBOW: dict[str, Any] = {"distributional": True, "noisy": True, "double": True, "prioritized": True, "v_min": -1.0}
SPACE = PackedBox(spaces.Box(-1, 1, (2,), np.float32), (4,))


@pytest.mark.parametrize(
    ("agent", "config", "iterations", "world", "mode"),
    [
        (A2C, A2CConfig(hidden=(16,)), 80, Masked, NEXT),
        (PPO, PPOConfig(hidden=(16,), n_epochs=5, total_steps=4_000), 8, MaskedByKey, SAME),
        (DQN, DQNConfig(**Q_LEARNING), 60, Masked, SAME),
        (DQN, DQNConfig(**Q_LEARNING, **RAINBOW, v_max=20.0), 15, MaskedByKey, NEXT),
    ],
    ids=["a2c", "ppo", "dqn", "rainbow"],
)
def test_agents_take_allowed_actions_only(agent: Any, config: Any, iterations: int, world: Any, mode: Any) -> None:
    world.invalid = 0
    learner = agent(config, envs_of_world(world, mode=mode))
    for _ in range(iterations):
        learner.iterate()
    evaluation = envs_of_world(world, 20, mode, seed=3)
    assert play(learner.evaluation_actions, evaluation).returns.mean() >= 3.9  # random allowed actions: 3.0
    learner.random_actions(learner.envs.observations)
    assert world.invalid == 0


def packed(masks: list[list[int]]) -> torch.Tensor:
    observations = np.random.default_rng(0).uniform(-1, 1, (len(masks), 2)).astype(np.float32)
    return torch.from_numpy(SPACE.pack(observations, len(masks), np.array(masks)))


@pytest.mark.parametrize("hidden", [(8,), ()])
def test_excluded_actions_have_probability_zero_and_no_gradient(hidden: tuple[int, ...]) -> None:
    network = ActorCritic(SPACE, spaces.Discrete(4), hidden, normalize=True)
    seen = packed([[1, 0, 1, 0], [0, 0, 0, 1]])
    network.saw(seen)
    outputs, values = network(seen)
    assert torch.equal(outputs, network.policy(seen))
    assert values.isfinite().all()
    probs = outputs.softmax(-1)
    assert (probs[0, [1, 3]] == 0).all()
    assert probs[1].tolist() == [0, 0, 0, 1]
    log_probs, entropy = network.distribution.evaluate(outputs, torch.tensor([2, 3]))
    kept = outputs[0, [0, 2]].log_softmax(-1)
    torch.testing.assert_close(log_probs, torch.stack([kept[1], torch.zeros(())]))
    torch.testing.assert_close(entropy, torch.stack([-(kept.exp() * kept).sum(), torch.zeros(())]))
    (log_probs.sum() + entropy.sum()).backward()
    last = [layer for layer in network.actor.modules() if isinstance(layer, torch.nn.Linear)][-1]
    gradient = last.bias.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert (gradient[[1, 3]] == 0).all()
    assert (gradient[[0, 2]] != 0).all()
    rng = torch.Generator().manual_seed(0)
    drawn = network.distribution.sample(outputs.detach().repeat(500, 1), rng).view(500, 2)
    assert set(drawn[:, 0].tolist()) == {0, 2}
    assert set(drawn[:, 1].tolist()) == {3}
    assert network.distribution.mode(outputs)[1] == 3


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("distributional", [False, True])
def test_targets_of_q_learning_take_the_maximum_over_allowed_actions(double: bool, distributional: bool) -> None:
    config = DQNConfig(hidden=(8,), double=double, distributional=distributional, v_min=-9.0, v_max=9.0)
    agent = DQN(config, NoEnvs(SPACE, spaces.Discrete(4), 1))  # type: ignore[arg-type]
    allowed = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    after, no = packed(allowed.tolist()), torch.tensor([False, False, True])
    x, ones = torch.tensor([0.5, -0.5, 1.0]), torch.ones(3)
    discounts = torch.tensor([0.9, 0.9, 0.0])
    batch = Batch(after, torch.zeros(3, dtype=torch.int64), x, after, discounts, no, ones, torch.arange(3))
    with torch.no_grad():
        every = agent.online(after)
        q = every.softmax(-1) @ agent.online.support if distributional else every
        best = torch.where(allowed > 0, q, -torch.inf).amax(1)
    targets = agent.targets(batch)
    found = targets @ agent.online.support if distributional else targets
    torch.testing.assert_close(found, x + discounts * best, atol=1e-4, rtol=1e-4)
    assert agent.greedy(after.numpy())[1] == 3
    chosen = {tuple(agent.uniform(after.numpy(), np.random.default_rng(i))[:2]) for i in range(50)}
    assert chosen == {(0, 3), (2, 3)}


class AllFalse(Masked):
    """At its third step, no action is allowed any more."""

    truncates = False

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.t == 3:
            self.mask[:] = 0
            return observation, reward, not self.truncates, self.truncates, info
        return observation, reward, terminated, truncated, info


class Stuck(AllFalse):
    truncates = True


class Missing(Masked):
    def step(self, action: Any) -> Any:
        return (*super().step(action)[:4], {})


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_a_state_without_allowed_actions_must_end_the_episode(mode: AutoresetMode) -> None:
    agent = DQN(DQNConfig(**Q_LEARNING), envs_of_world(AllFalse, mode=mode))
    for _ in range(6):
        metrics = agent.iterate()
    assert np.isfinite(float(metrics["loss"]))
    for world, step in ((Stuck, 3), (Missing, 1)):
        envs = envs_of_world(world, 2, mode)
        said = rf"action_mask: missing or all False in environment 0 at its step {step}: expected 6 numbers"
        with pytest.raises(EnvError, match=said):
            act(envs, 3)


def act(envs: Envs, steps: int) -> None:
    """Take the first allowed action in every environment."""
    for _ in range(steps):
        space: Any = envs.observation_space
        envs.step(space.mask(envs.observations).argmax(1))


class Continuous(Masked):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (6,), np.float32)


class TooLong(MaskedByKey):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(5)


@pytest.mark.parametrize(
    ("algorithm", "world", "options", "said"),
    [
        ("ppo", Continuous, {}, "action_mask: expected Discrete or MultiDiscrete actions, got Box"),
        ("a2c", TooLong, {}, r"observation action_mask: expected shape \[5\], got Box"),
        ("dreamer", Masked, {}, "dreamer: expected arrays .* without action masks, got .* with masks of 6 actions"),
        ("a2c", Masked, {"extras": [CountBonus(0.1)]}, "count-bonus: expected arrays"),
        ("a2c", Masked, {"popart": True}, "popart: expected arrays"),
    ],
)
def test_masks_are_refused_where_they_would_be_ignored(algorithm: str, world: Any, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rl.make(algorithm, world, **options)


def test_repeated_actions_are_refused() -> None:
    agent = rl.make("a2c", Masked, action_repeat=2)
    with pytest.raises(EnvError, match="action_repeat: expected 1 with action_mask"):
        agent.iterate()


def test_a_saved_agent_predicts_with_masks(tmp_path: Path) -> None:
    Masked.invalid = 0
    agent = rl.make("ppo", Masked, hidden=(8,), total_steps=256, eval_every=256, n_envs=4, n_steps=32, n_epochs=2)
    assert agent.learn()["env_steps"] == 256
    assert Masked.invalid == 0
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert loaded.spaces == agent.spaces
    observation, mask = np.ones(2, np.float32), np.array([0, 1, 0, 0, 0, 0])
    assert loaded.predict(observation, action_mask=mask)[0] == 1
    batch, masks = np.ones((2, 2), np.float32), np.eye(6)[[4, 2]]
    for deterministic in (True, False):
        assert loaded.predict(batch, action_mask=masks, deterministic=deterministic)[0].tolist() == [4, 2]
    for wrong, said in ((None, "got None"), (np.zeros(6), "got all False"), (np.ones(5), r"got float64 \[1, 5\]")):
        with pytest.raises(ValueError, match=f"action_mask: expected .*{said}"):
            loaded.predict(observation, action_mask=wrong)
    with pytest.raises(ValueError, match="action_mask: expected None"):
        rl.make("ppo", "CartPole-v1").predict(np.zeros(4, np.float32), action_mask=[1, 1])
