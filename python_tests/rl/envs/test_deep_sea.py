"""DeepSea: its rewards, its vector version, and the arguments of environments."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from automl_ext.rl import EnvOptions, make_envs
from automl_ext.rl.envs.deep_sea import DeepSea
from automl_ext.rl.envs.wrappers import OneHotView
from automl_ext.training.errors import UserError

ID = "automl_ext/DeepSea-v0"


def options(*arguments: str, **others: Any) -> EnvOptions:
    return EnvOptions(env_kwarg=arguments, **others)


def test_one_sequence_of_actions_has_the_treasure() -> None:
    """All 2⁵ sequences: the diagonal returns 0.99, every other one minus the cost of its steps to the right."""
    env, returns = DeepSea(5), []
    for actions in itertools.product((0, 1), repeat=5):
        env.reset()
        column, rights, total = 0, 0, 0.0
        for row, action in enumerate(actions):
            right = bool(action == env.mapping[row, column])
            column, rights = min(max(column + (1 if right else -1), 0), 4), rights + right
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward
            assert terminated == (row == 4)
            assert not truncated
            assert observation.sum() == (row < 4)
            assert row == 4 or observation[5 * (row + 1) + column] == 1
        expected = (1.0 if rights == 5 else 0.0) - 0.01 * rights / 5
        assert total == pytest.approx(expected)
        returns.append(total)
    assert sorted(returns)[-2:] == pytest.approx([0.0, 0.99])
    assert 0 < DeepSea(20).mapping.mean() < 1  # neither action is always the right one


def test_follows_the_interface_of_gymnasium() -> None:
    check_env(DeepSea(3), skip_render_check=True)


def test_vector_version_equals_single_environments() -> None:
    each = [
        make_envs(ID, 3, 0, options("size=4", "mapping_seed=2", vectorization=mode))
        for mode in ("sync", "vector_entry_point")
    ]
    rng = np.random.default_rng(0)
    for _ in range(25):
        actions = rng.integers(2, size=3)
        steps = [envs.step(actions) for envs in each]
        for a, b in zip(*steps, strict=True):
            np.testing.assert_array_equal(a, b)
    assert each[0].episodes == each[1].episodes
    assert len(each[0].episodes) == 18


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_state_is_restored_exactly(mode: Any) -> None:
    first, second = (make_envs(ID, 2, 0, options("size=6", vectorization=mode)) for _ in range(2))
    for _ in range(9):
        first.step(np.array([0, 1]))
    assert second.load_state_dict(first.state_dict())
    for _ in range(7):
        steps = first.step(np.array([1, 0])), second.step(np.array([1, 0]))
        for a, b in zip(*steps, strict=True):
            np.testing.assert_array_equal(a, b)


def test_arguments_of_environments() -> None:
    assert options("size=20", "name=a=b", "flag=true", "x=0.5").arguments == {
        "size": 20,
        "name": "a=b",
        "flag": True,
        "x": 0.5,
    }
    assert make_envs(ID, 2, 0, options("size=7")).observation_space.shape == (49,)
    assert make_envs("CartPole-v1", 1, 0, options("sutton_barto_reward=true")).step(np.array([0])).rewards[0] == 0
    for wrong in ("size", "=3", "a b=3"):
        with pytest.raises(ValueError, match=r"env_kwarg: expected NAME=VALUE, got "):
            options(wrong)
    for wrong, text in (("depth=3", "depth"), ("size=0", "size: expected at least 1, got 0")):
        with pytest.raises(UserError, match=f"--env-id {ID}.*{text}"):
            make_envs(ID, 1, 0, options(wrong))


def test_minigrid_is_seen_one_hot() -> None:
    pytest.importorskip("minigrid")
    envs = make_envs("MiniGrid-DoorKey-5x5-v0", 2, 0)
    assert envs.observation_space.shape == envs.observations.shape[1:] == (7, 7, 20)
    assert envs.observations.dtype == bool
    seen = OneHotView(gymnasium.make("MiniGrid-DoorKey-5x5-v0"))
    raw, _ = seen.env.reset(seed=0)
    parts = np.split(seen.observation(raw), [11, 17], axis=-1)
    assert all((part.sum(-1) == 1).all() for part in parts)
    np.testing.assert_array_equal(np.stack([part.argmax(-1) for part in parts], -1), raw["image"])


def test_minigrid_with_the_whole_grid_has_the_agents_four_directions() -> None:
    pytest.importorskip("minigrid")
    wrapped = EnvOptions(wrapper=("minigrid.wrappers:FullyObsWrapper",))
    envs = make_envs("MiniGrid-Empty-5x5-v0", 1, 0, wrapped)
    assert envs.observation_space.shape == (5, 5, 21)
    seen = []
    for _ in range(4):
        seen.append(envs.observations[0, 1, 1])
        envs.step(np.array([0]))  # turn left
    assert all(channels[:17].nonzero()[0].tolist() == [10, 11] for channels in seen)  # a red agent
    assert [channels[17:].argmax() for channels in seen] == [0, 3, 2, 1]
    assert np.stack(seen)[:, 17:].sum() == 4
    viewed = EnvOptions(wrapper=("minigrid.wrappers:ViewSizeWrapper",))
    assert make_envs("MiniGrid-Empty-5x5-v0", 1, 0, viewed).observation_space.shape == (7, 7, 20)
