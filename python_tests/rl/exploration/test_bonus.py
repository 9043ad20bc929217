"""Exploration bonuses: formulas, what they change, learning that needs them, and exact resuming."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from automl_ext import cli, rl
from automl_ext.rl import A2C, DQN, A2CConfig, DQNConfig, EnvOptions, ReinforceConfig, make_envs
from automl_ext.rl.actor_critic.a3c_config import A3CConfig
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.exploration.bonus import BatchBonus, StepBonus, explore_steps
from automl_ext.rl.exploration.count import CountBonus
from automl_ext.rl.exploration.first_visits import FirstVisits
from automl_ext.rl.exploration.hashing import ObservationHash
from automl_ext.rl.exploration.icm import ICM
from automl_ext.rl.exploration.learned import LearnedBonus
from automl_ext.rl.exploration.rnd import RND
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.rl.replay.uniform import Batch

CPU = torch.device("cpu")
BOX = spaces.Box(-10, 10, (3,), np.float32)


def step_of(after: Any, actions: Any = None, valid: Any = None, rewards: Any = 0.0) -> Step:
    x = np.asarray(after)
    n = len(x)
    never = np.zeros(n, bool)
    acted = np.zeros(n, np.int64) if actions is None else np.asarray(actions)
    seen = np.ones(n, bool) if valid is None else np.asarray(valid)
    return Step(x - 1 if x.dtype != bool else x, acted, np.full(n, rewards, np.float32), x, never, never, seen)


def bonus_of(bonus: Any, after: Any) -> list[float]:
    x = torch.as_tensor(np.asarray(after))
    return bonus(x, torch.zeros(len(x), dtype=torch.int64), x).tolist()


def test_count_bonus_is_one_over_the_root_of_the_visits() -> None:
    rng, bonus, visits = np.random.default_rng(0), CountBonus(BOX), Counter[tuple[float, ...]]()
    for _ in range(50):
        after = rng.integers(-1, 2, size=(4, 3)).astype(np.float32)
        valid = rng.random(4) < 0.8
        bonus.observe(step_of(after, valid=valid))
        visits.update(map(tuple, after[valid].tolist()))
    places = np.array(list(itertools.product((-1, 0, 1), repeat=3)), np.float32)
    expected = [visits[tuple(place)] ** -0.5 for place in places.tolist()]
    assert bonus_of(bonus, places) == pytest.approx(expected)
    assert bonus_of(bonus, [[5.0, 5.0, 5.0]]) == [1.0]  # never visited
    assert bonus_of(bonus, places + np.float32(0.04)) == pytest.approx(expected)  # equal up to rounding
    assert bonus_of(bonus, -0.0 * places[:1]) == bonus_of(bonus, 0.0 * places[:1])
    other = CountBonus(BOX)
    other.load_state_dict(bonus.state_dict())
    assert bonus_of(other, places) == bonus_of(bonus, places)


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_images_are_counted_exactly(dtype: Any) -> None:
    bonus = CountBonus(spaces.Box(0, 1, (4, 4, 2), dtype))
    image = np.zeros((1, 4, 4, 2), dtype)
    other = image.copy()
    other[0, 3, 3, 1] = 1
    for _ in range(4):
        bonus.observe(step_of(image))
    bonus.observe(step_of(other))
    assert bonus_of(bonus, np.concatenate([image, other])) == [0.5, 1.0]


def test_rnd_is_the_mean_squared_error_to_the_random_network() -> None:
    model, x = RND(BOX), torch.randn(5, 3)
    errors, losses = model(x - 1, torch.zeros(5), x)
    with torch.no_grad():
        expected = ((model.predictor(x) - model.target(x)) ** 2).mean(1)
    assert torch.equal(errors, losses)
    torch.testing.assert_close(errors.detach(), expected)
    losses.sum().backward()
    assert all(p.grad is None for p in model.target.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.predictor.parameters())


def test_icm_is_the_error_of_the_forward_model() -> None:
    model = ICM(BOX, spaces.Discrete(4))
    x, actions, after = torch.randn(6, 3), torch.arange(6) % 4, torch.randn(6, 3)
    errors, losses = model(x, actions, after)
    with torch.no_grad():
        f, g = model.encoder(x), model.encoder(after)
        predicted = model.ahead(torch.cat([f, torch.eye(4)[actions]], 1))
        expected = ((predicted - g) ** 2).mean(1) / 2
        log_p = model.inverse(torch.cat([f, g], 1)).log_softmax(1)[torch.arange(6), actions]
    torch.testing.assert_close(errors.detach(), expected)
    torch.testing.assert_close(losses.detach(), 0.2 * expected - 0.8 * log_p)
    box = ICM(BOX, spaces.Box(-1, 1, (2,)))
    a = torch.rand(6, 2)
    errors, losses = box(x, a, after)
    guess = box.inverse(torch.cat([box.encoder(x), box.encoder(after)], 1))
    torch.testing.assert_close(losses, 0.2 * errors + 0.8 * ((guess - a) ** 2).mean(1))


@pytest.mark.parametrize("shape", [(), (2,), (2, 2)])
def test_icm_scales_box_actions_of_any_shape(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    wide = ICM(BOX, spaces.Box(100, 300, shape))
    torch.manual_seed(0)
    unit = ICM(BOX, spaces.Box(-1, 1, shape))
    x, after, actions = torch.randn(6, 3), torch.randn(6, 3), torch.rand(6, *shape)
    for found, expected in zip(wide(x, 200 + 100 * actions, after), unit(x, actions, after), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert wide.state_dict().keys() == unit.encoder.state_dict(prefix="encoder.").keys() | {
        f"{part}.{i}.{name}" for part in ("inverse", "ahead") for i in (0, 2) for name in ("weight", "bias")
    }


class Norm2(nn.Module):
    """Errors ‖s′‖² of the normalized next observations; nothing to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> tuple[Tensor, Tensor]:
        errors = next_observations.square().sum(1)
        return errors, errors + self.unused


def test_learned_bonus_is_divided_by_the_deviation_of_discounted_sums() -> None:
    rng, gamma = np.random.default_rng(0), 0.9
    bonus = LearnedBonus(Norm2(), BOX, 2, gamma, CPU, batch_size=8)
    steps = [step_of(rng.normal(3, 2, size=(2, 3)).astype(np.float32), valid=rng.random(2) < 0.8) for _ in range(12)]
    for step in steps:
        bonus.observe(step)
    assert bonus_of(bonus, np.ones((1, 3), np.float32)) != [0.0]
    bonus.observe(steps[0])  # the last update had steps 0 to 11

    seen = np.empty((0, 3))
    sums, history = np.zeros(2), []
    for first in (0, 4, 8):
        part = steps[first : first + 4]
        seen = np.concatenate([seen, *(s.next_observations[s.valid] for s in part)])
        mean, deviation = seen.mean(0), seen.std(0)
        for s in part:
            error = (np.clip((s.next_observations - mean) / deviation, -5, 5) ** 2).sum(1) * s.valid
            sums = gamma * sums + error
            history.append(sums)
    x = rng.normal(3, 4, size=(5, 3)).astype(np.float32)
    expected = (np.clip((x - mean) / deviation, -5, 5) ** 2).sum(1) / np.std(history)
    np.testing.assert_allclose(bonus_of(bonus, x), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["rnd", "icm"])
def test_learned_bonus_falls_where_it_has_learned(name: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = RND(BOX) if name == "rnd" else ICM(BOX, spaces.Discrete(2))
    bonus = LearnedBonus(model, BOX, 8, 0.99, CPU)
    assert bonus_of(bonus, np.ones((2, 3), np.float32)) == [0.0, 0.0]  # no statistics yet
    for _ in range(400):
        actions = rng.integers(2, size=8)
        before = rng.normal(size=(8, 3)).astype(np.float32)
        after = before + np.where(actions, 1, -1)[:, None].astype(np.float32)
        bonus.observe(step_of(after, actions)._replace(observations=before))
    x = torch.randn(200, 3)
    actions = torch.arange(200) % 2
    after = x + (2 * actions - 1)[:, None]
    known = bonus(x, actions, after).mean()
    # Places where it has never been, and actions with another effect than they used to have.
    new = bonus(x, actions, after + 6) if name == "rnd" else bonus(x, 1 - actions, after)
    assert new.mean() > 3 * known > 0


def test_step_bonus_adds_to_valid_rewards_and_leaves_the_rest() -> None:
    transform = StepBonus(CountBonus(BOX), 0.5, first_action=3)
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    step = step_of(x, [3, 4, 3], [True, True, False], rewards=2.0)
    changed = transform(step)
    assert changed.rewards.tolist() == [2.5, 2.5, 2.0]
    assert changed.rewards.dtype == np.float32
    assert all(a is b for a, b in zip(changed[3:], step[3:], strict=True))
    assert changed.actions is step.actions
    assert transform(step).rewards.tolist() == pytest.approx([2 + 0.5**1.5, 2 + 0.5**1.5, 2.0])
    assert transform.measured()["bonus"] == pytest.approx((1 + 2 * 0.5**1.5) / 4)
    assert transform.measured()["bonus"] == 0.0
    assert StepBonus(CountBonus(BOX), 0.0)(step) is step


def test_a_bonus_once_is_paid_at_the_first_visit_in_an_episode() -> None:
    space = spaces.Box(-100, 100, (1,), np.float32)

    def move(before: list[int], after: list[int], terminated: list[bool], valid: list[bool]) -> Step:
        step = step_of(np.array(after, np.float32)[:, None], valid=valid)
        return step._replace(observations=np.array(before, np.float32)[:, None], terminated=np.array(terminated))

    steps = [
        move([0, 0], [1, 0], [False, False], [True, True]),  # the second environment stays where it began
        move([1, 0], [0, 1], [False, True], [True, True]),  # the first one returns to where it began
        move([0, 1], [2, 0], [False, False], [True, False]),  # the second one only restarts
        move([2, 0], [1, 1], [False, False], [True, True]),  # 1 is old in the first episode, new in the second
        move([0, 1], [1, 0], [False, False], [True, True]),  # the first one has a new episode, as after a resumed run
    ]
    visits = [FirstVisits(ObservationHash(space), 2) for _ in range(2)]
    expected = [[True, False], [False, True], [True, False], [False, True], [True, False]]
    assert [visits[0](step).tolist() for step in steps] == expected
    for step in steps[:2]:
        visits[1](step)
    visits[0].load_state_dict(visits[1].state_dict())  # as after a resumed run
    assert [visits[0](step).tolist() for step in steps[2:]] == expected[2:]
    transform = StepBonus(CountBonus(space), 0.5, once=FirstVisits(ObservationHash(space), 2))
    rewards = [transform(step._replace(rewards=np.zeros(2, np.float32))).rewards.tolist() for step in steps]
    assert [[r > 0 for r in row] for row in rewards] == expected


def test_batch_bonus_uses_the_counts_at_the_time_of_sampling() -> None:
    bonus = CountBonus(BOX)
    transform = BatchBonus(bonus, 2.0)
    ones, x = torch.ones(2), torch.zeros(2, 3)
    batch = Batch(x, ones.long(), ones, x, ones, ones.bool(), ones, ones.long())
    for visits in range(1, 5):
        bonus.observe(step_of(np.zeros((1, 3), np.float32)))
        assert transform(batch).returns.tolist() == pytest.approx([1 + 2 * visits**-0.5] * 2)
    assert batch.returns.tolist() == [1, 1]
    assert float(transform.measured()["bonus"]) == pytest.approx(2 * sum(n**-0.5 for n in range(1, 5)) / 4)
    assert transform.measured() == {}


SEA: dict[str, Any] = {"env_id": "automl_ext/DeepSea-v0", "env": EnvOptions(env_kwarg=("size=8",)), "n_envs": 8}
Q: dict[str, Any] = {
    "hidden": (64,),
    "lr": 1e-3,
    "batch_size": 32,
    "learning_starts": 100,
    "train_freq": 16,
    "gradient_steps": 3,
    "target_update_interval": 128,
    "exploration_fraction": 0.05,
    "final_epsilon": 0.0,
}


def treasures(agent: A2C | DQN, steps: int) -> int:
    """Train; return how many of the last 80 episodes found the treasure."""
    while agent.envs.steps < steps:
        agent.iterate()
    return sum(e.episode_return > 0.9 for e in agent.envs.episodes[-80:])


@pytest.mark.parametrize("name", ["none", "count"])
def test_a2c_learns_deep_sea_only_with_a_bonus(name: Any) -> None:
    found = treasures(A2C(A2CConfig(**SEA, total_steps=6_000, bonus=name)), 6_000)
    assert found < 10 if name == "none" else found > 60


def test_dqn_learns_deep_sea_with_a_bonus() -> None:
    sea = SEA | {"env": EnvOptions(env_kwarg=("size=7",))}
    agent = DQN(DQNConfig(**sea, **Q, total_steps=4_500, n_step=1, lr_decay=False, bonus="count"))
    assert treasures(agent, 4_500) > 60
    cost = 0.01 / 7  # the replay keeps the task's rewards
    returns = agent.replay.sample(500).returns.numpy()
    assert np.abs(returns[:, None] - np.array([0, -cost, 1 - cost])).min(1).max() < 1e-6


SHORT = "--eval-every 256 --eval-episodes 2 --final-episodes 2 --checkpoint-every 200 --total-steps 600 --n-envs 4"


def train(out: Path, *arguments: str) -> None:
    given = ["--env-id", "automl_ext/DeepSea-v0", "--env-kwarg", "size=4", *SHORT.split(), "--out", str(out)]
    assert cli.main(["train", *arguments, *given]) == 0


def last_state(out: Path) -> Any:
    return torch.load(sorted((out / "checkpoints").iterdir())[-1] / "state.pt")["agent"]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


COMMANDS = [
    "a2c --bonus count --bonus-once",
    "a2c --bonus icm",
    "reinforce --bonus count",
    "a2c --self-imitation --imitation-batch-size 16",
    "dqn --bonus rnd --n-step 1 --hidden 16 --learning-starts 100 --train-freq 32 --gradient-steps 2",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_resumed_run_equals_uninterrupted_run(command: str, tmp_path: Path) -> None:
    train(tmp_path / "whole", *command.split())
    train(tmp_path / "halted", *command.split(), "--stop-after", "310")
    train(tmp_path / "halted", *command.split(), "--resume", "auto")
    assert same(last_state(tmp_path / "whole"), last_state(tmp_path / "halted"))
    rows = [json.loads(x) for x in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert (tmp_path / "halted/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    metric = "imitation_gain" if "imitation" in command else "bonus"
    assert all(row[metric] > 0 for row in rows)
    assert all(-0.02 < row["episode_return"] < 1 for row in rows)  # the task's: without a bonus


@pytest.mark.parametrize("name", sorted(ALGORITHMS.keys() - {"a3c"}))
def test_no_algorithm_ignores_the_option(name: str) -> None:
    found = algorithm(name)
    if "bonus" not in found.config.__dataclass_fields__:
        return
    one_step = {"n_step": 1} if "n_step" in found.config.__dataclass_fields__ else {}
    agent = found.agent(found.config(**one_step, env_id="CartPole-v1", bonus="count"))
    assert isinstance(agent.bonus, (StepBonus, BatchBonus))
    agent.envs.step(np.zeros(agent.envs.n_envs, np.int64))
    assert sum(agent.bonus.bonus.counts.values()) == agent.envs.n_envs


def test_bonus_comes_after_other_transforms() -> None:
    envs = make_envs(SEA["env_id"], 2, 0, SEA["env"])
    envs.transform = StepBonus(CountBonus(envs.observation_space), 2.0)
    explore_steps("count", 0.5, envs, 0.99, 0, CPU)
    assert envs.step(np.array([1, 0])).rewards.max() == pytest.approx(2.5, abs=0.01)


def test_loaded_agent_trains_with_its_bonus(tmp_path: Path) -> None:
    config = A2CConfig(**SEA, total_steps=400, eval_every=400, eval_episodes=1, final_episodes=1, bonus="count")
    loaded = rl.load(A2C(config).save(tmp_path / "agent.pt"))
    loaded.learn()
    assert isinstance(loaded, A2C)
    assert isinstance(loaded.bonus, StepBonus)
    assert sum(loaded.bonus.bonus.counts.values()) == loaded.envs.steps  # type: ignore[attr-defined]


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="n_step: expected 1 with a bonus, got 3 with bonus count"):
        DQNConfig(bonus="count", n_step=3)
    with pytest.raises(ValueError, match="bonus_once: expected False without a bonus"):
        ReinforceConfig(bonus_once=True)
    with pytest.raises(ValueError, match="bonus: expected none for A3C"):
        A3CConfig(bonus="rnd")
    with pytest.raises(ValueError, match="self_imitation: expected False for A3C"):
        A3CConfig(self_imitation=True)
    with pytest.raises(ValueError, match="bonus_weight: expected at least 0, got -1"):
        ReinforceConfig(bonus_weight=-1)
