"""Continuous actions in boxes of any location and size, and unsupported spaces."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from policy_worlds import World, envs_in

from automl_ext.rl import A2C, PPO, A2CConfig, PPOConfig, Reinforce, ReinforceConfig
from automl_ext.rl.dreamer import DreamerConfig
from automl_ext.rl.dreamer.actions import actions_of
from automl_ext.rl.dreamer.world_model import WorldModel
from automl_ext.rl.networks.action_spaces import BoxScaling, discrete
from automl_ext.rl.networks.body import Body
from automl_ext.rl.networks.distributions import DiagonalGaussian, distribution_of
from automl_ext.training.errors import UserError


class Far(World):
    """The reward is −|a − 150| / 50 for an action in [100, 200]."""

    states, best = 1, 150

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(100, 200, (1,), np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        return self.observe(), -abs(float(action[0]) - self.best) / 50, True, False, {}


class Off(Far):
    """The reward is −|a − 162| / 50, so the mean has to change."""

    best = 162


@pytest.mark.parametrize(("agent", "iterations"), [("a2c", 100), ("reinforce", 100), ("ppo", 20)])
def test_bandit_with_actions_far_from_0_is_learned(agent: str, iterations: int) -> None:
    """Also the actions of ``act``, used in evaluation, are in the environment's units."""
    settings: dict[str, Any] = {"hidden": (8,), "lr": 2e-2}
    envs = envs_in(Off, 16, AutoresetMode.SAME_STEP)
    learner: A2C | PPO | Reinforce
    if agent == "a2c":
        learner = A2C(A2CConfig(optimizer="adam", **settings), envs)
    elif agent == "ppo":
        learner = PPO(PPOConfig(n_steps=16, batch_size=64, n_epochs=4, lr_decay=False, **settings), envs)
    else:
        learner = Reinforce(ReinforceConfig(**settings), envs)
    for _ in range(iterations):
        learner.iterate()
    assert learner.act(np.ones((1, 1), np.float32)).item() == pytest.approx(Off.best, abs=8)
    assert learner.network.distribution.log_std.item() < -0.5  # type: ignore[operator, union-attr]


def test_first_actions_have_the_initial_deviation() -> None:
    envs = envs_in(Far, 16, AutoresetMode.SAME_STEP)
    agent = PPO(PPOConfig(hidden=(8,), initial_std=0.1), envs)
    actions = np.concatenate([agent.sample(envs.observations)[1] for _ in range(100)])
    assert actions.std() == pytest.approx(0.1 * 50, rel=0.1)  # half the width of the box is 50
    with pytest.raises(ValueError, match=r"initial_std: expected above 0, got 0"):
        PPOConfig(initial_std=0)


def test_box_scaling_is_affine_and_clips() -> None:
    scaling = BoxScaling(spaces.Box(np.float32([100, -3]), np.float32([200, 1])))
    given = np.array([[0, 0], [-1, 1], [1, -1], [0.5, 9], [-9, 0.5]], np.float32)
    expected = [[150, -1], [100, 1], [200, -3], [175, 1], [100, 0]]
    actions = scaling.to_env(given)
    assert actions.tolist() == expected
    assert actions.dtype == np.float32
    assert BoxScaling(spaces.Box(0, 1, (2, 3), np.float64)).to_env(np.zeros((4, 6))).shape == (4, 2, 3)


def test_a_dimension_with_equal_bounds_has_one_action() -> None:
    scaling = BoxScaling(spaces.Box(np.float32([-1, 2]), np.float32([1, 2])))
    assert scaling.half.tolist() == [1, 1]
    assert scaling.to_env(np.float32([[0.5, -3], [1, 3]])).tolist() == [[0.5, 2], [1, 2]]


@pytest.mark.parametrize("bound", [np.inf, float(np.finfo(np.float32).max), 1e7])
def test_dimensions_without_useful_bounds_are_not_scaled_with_one_warning(bound: float) -> None:
    space = spaces.Box(np.float32([-bound, 0, 10]), np.float32([bound, bound, 20]))
    with pytest.warns(UserWarning, match="2 of 3 dimensions have no bounds within ±1e") as caught:
        distribution = distribution_of(space)
    actions = distribution.to_env(np.array([[0.5, 2, 0], [-7, -1, 1]], np.float32))
    assert actions.tolist() == [[0.5, 2, 15], [-7, 0, 20]]
    assert len(caught) == 1
    assert isinstance(distribution, DiagonalGaussian)
    with pytest.raises(UserError, match="dreamer bounded Box of floats"):
        actions_of(space)


def test_bounded_boxes_are_scaled_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distribution_of(spaces.Box(-1e6, 1e6, (2,), np.float32))


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(3)])
@pytest.mark.parametrize("take", [discrete, actions_of])
def test_unsupported_space_lists_the_supported_ones(take: Any, space: Any) -> None:
    takes = "all agents take Discrete; a2c, a3c, ppo and reinforce also MultiDiscrete, MultiBinary and Box of floats"
    with pytest.raises(UserError, match=takes) as refused:
        take(space)
    assert "take it" not in str(refused.value)


TABLE = np.arange(12.0).reshape(3, 4)  # NumPy prints it in three lines


@pytest.mark.parametrize(
    ("build", "space"),
    [
        (discrete, spaces.MultiDiscrete(np.full((3, 40), 2))),
        (Body, spaces.Dict({"a": spaces.Box(-TABLE, TABLE)})),
        (lambda space: WorldModel(space, 2, DreamerConfig()), spaces.Box(-TABLE, TABLE)),
    ],
    ids=["actions", "body", "dreamer"],
)
def test_message_about_a_space_is_one_line(build: Any, space: Any) -> None:
    assert "\n" in repr(space)
    with pytest.raises(UserError) as refused:
        build(space)
    assert "\n" not in str(refused.value)
