"""Counts and RND: formulas, what they change, learning that needs them, and exact resuming."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from automl_ext.rl import A2C, DQN, A2CConfig, DQNConfig, EnvOptions
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras import RND, CountBonus, Extras
from automl_ext.rl.extras.bonus import BatchBonus, FirstVisits, ObservationHash, StepBonus
from automl_ext.rl.extras.count_bonus import Visits
from automl_ext.rl.extras.rnd import Distillation, PredictionError
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError

BOX = spaces.Box(-10, 10, (3,), np.float32)


def step_of(after: Any, valid: Any = None, rewards: Any = 0.0) -> Step:
    x = np.asarray(after)
    n = len(x)
    never, acted = np.zeros(n, bool), np.zeros(n, np.int64)
    seen = np.ones(n, bool) if valid is None else np.asarray(valid)
    return Step(x - 1 if x.dtype != bool else x, acted, np.full(n, rewards, np.float32), x, never, never, seen)


def bonus_of(bonus: Any, after: Any) -> list[float]:
    return bonus(torch.as_tensor(np.asarray(after))).tolist()


def test_count_bonus_is_one_over_the_root_of_the_visits() -> None:
    rng, bonus, visits = np.random.default_rng(0), Visits(BOX), Counter[tuple[float, ...]]()
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
    other = Visits(BOX)
    other.load_state_dict(bonus.state_dict())
    assert bonus_of(other, places) == bonus_of(bonus, places)


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_images_are_counted_exactly(dtype: Any) -> None:
    bonus = Visits(spaces.Box(0, 1, (4, 4, 2), dtype))
    image = np.zeros((1, 4, 4, 2), dtype)
    other = image.copy()
    other[0, 3, 3, 1] = 1
    for _ in range(4):
        bonus.observe(step_of(image))
    bonus.observe(step_of(other))
    assert bonus_of(bonus, np.concatenate([image, other])) == [0.5, 1.0]


def test_rnd_is_the_mean_squared_error_to_the_random_network() -> None:
    model, x = Distillation(BOX), torch.randn(5, 3)
    errors = model(x)
    with torch.no_grad():
        expected = ((model.predictor(x) - model.target(x)) ** 2).mean(1)
    torch.testing.assert_close(errors.detach(), expected)
    errors.sum().backward()
    assert all(p.grad is None for p in model.target.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.predictor.parameters())


class Norm2(nn.Module):
    """Errors ‖s′‖² of the normalized next observations; nothing to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, observations: Tensor) -> Tensor:
        return observations.square().sum(1) + self.unused


def test_learned_bonus_is_divided_by_the_deviation_of_discounted_sums() -> None:
    rng, gamma = np.random.default_rng(0), 0.9
    bonus = PredictionError(Norm2(), BOX, 2, gamma, batch_size=8, lr=0.0)
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
            error = (np.clip((s.next_observations - mean) / deviation, -5, 5) ** 2).sum(1)
            sums = np.where(s.valid, gamma * sums + error, sums)
            history += sums[s.valid].tolist()
    x = rng.normal(3, 4, size=(5, 3)).astype(np.float32)
    expected = (np.clip((x - mean) / deviation, -5, 5) ** 2).sum(1) / np.std(history)
    np.testing.assert_allclose(bonus_of(bonus, x), expected, rtol=1e-4)


def test_rnd_falls_where_it_has_learned() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    bonus = PredictionError(Distillation(BOX), BOX, 8, 0.99)
    assert bonus_of(bonus, np.ones((2, 3), np.float32)) == [0.0, 0.0]  # no statistics yet
    for _ in range(400):
        bonus.observe(step_of(rng.normal(size=(8, 3)).astype(np.float32)))
    x = torch.randn(200, 3)
    assert bonus(x + 6).mean() > 3 * bonus(x).mean() > 0  # places where it has never been


def test_step_bonus_adds_to_valid_rewards_and_leaves_the_rest() -> None:
    transform = StepBonus(Visits(BOX), 0.5)
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    step = step_of(x, [True, True, False], rewards=2.0)
    changed = transform(step)
    assert changed.rewards.tolist() == [2.5, 2.5, 2.0]
    assert changed.rewards.dtype == np.float32
    assert all(a is b for a, b in zip(changed[3:], step[3:], strict=True))
    assert changed.actions is step.actions
    assert transform(step).rewards.tolist() == pytest.approx([2 + 0.5**1.5, 2 + 0.5**1.5, 2.0])
    assert transform.mean() == pytest.approx((1 + 2 * 0.5**1.5) / 4)
    assert transform.mean() == 0.0
    assert StepBonus(Visits(BOX), 0.0)(step) is step


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
        None,  # the running episodes are aborted, as by a resumed run
        move([0, 1], [1, 0], [False, False], [True, True]),
    ]
    expected = [[True, False], [False, True], [True, False], [False, True], None, [True, True]]

    def found(visits: FirstVisits, steps: list[Step | None]) -> list[Any]:
        return [visits.cut() if step is None else visits(step).tolist() for step in steps]

    visits = [FirstVisits(ObservationHash(space), 2) for _ in range(2)]
    assert found(visits[0], steps) == expected
    found(visits[1], steps[:2])
    visits[0].load_state_dict(visits[1].state_dict())  # as after a resumed run
    assert found(visits[0], steps[2:]) == expected[2:]
    transform = StepBonus(Visits(space), 0.5, once=FirstVisits(ObservationHash(space), 2))
    for step, row in zip(steps, expected, strict=True):
        if step is None:
            transform.cut()
        else:
            rewards = transform(step._replace(rewards=np.zeros(2, np.float32))).rewards
            assert (rewards > 0).tolist() == row


def test_batch_bonus_uses_the_counts_at_the_time_of_sampling() -> None:
    bonus = Visits(BOX)
    transform = BatchBonus(bonus, 2.0)
    ones, x = torch.ones(2), torch.zeros(2, 3)
    batch = Batch(x, ones.long(), ones, x, ones, ones.bool(), ones, ones.long())
    for visits in range(1, 5):
        bonus.observe(step_of(np.zeros((1, 3), np.float32)))
        assert transform(batch).returns.tolist() == pytest.approx([1 + 2 * visits**-0.5] * 2)
    assert batch.returns.tolist() == [1, 1]
    assert float(transform.mean()) == pytest.approx(2 * sum(n**-0.5 for n in range(1, 5)) / 4)
    assert transform.mean() is None


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


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a2c_learns_deep_sea_only_with_a_bonus(weight: float) -> None:
    extras = Extras.of([CountBonus(weight)])
    found = treasures(A2C(A2CConfig(**SEA, total_steps=6_000, extras=extras)), 6_000)
    assert found > 60 if weight else found < 10


def test_dqn_learns_deep_sea_with_a_bonus() -> None:
    sea = SEA | {"env": EnvOptions(env_kwarg=("size=7",))}
    agent = DQN(DQNConfig(**sea, **Q, total_steps=4_500, n_step=1, lr_decay=False, extras=Extras.of([CountBonus()])))
    assert treasures(agent, 4_500) > 60
    cost = 0.01 / 7  # the replay keeps the task's rewards
    returns = agent.replay.sample(500).returns.numpy()
    assert np.abs(returns[:, None] - np.array([0, -cost, 1 - cost])).min(1).max() < 1e-6


def test_settings_that_do_not_fit_are_refused() -> None:
    for extra in (CountBonus(0.1), RND(1.0)):
        with pytest.raises(UserError, match=f"n_step: expected 1 with {extra.name}, got 3"):
            DQN(DQNConfig(n_step=3, extras=Extras.of([extra])))
    with pytest.raises(UserError, match=r"count-bonus.once: expected False for dqn, whose replay has"):
        DQN(DQNConfig(n_step=1, extras=Extras.of([CountBonus(once=True)])))
    with pytest.raises(ValueError, match=r"count-bonus.weight: expected at least 0, got -1"):
        CountBonus(-1)
