"""Agents get observations of any float dtype as float32, and uint8 images as uint8."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from dqn_worlds import Fork, recorded, small
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from policy_worlds import World, envs_in

from automl_ext.rl import A2C, CQL, DQN, A2CConfig, CQLConfig, Reinforce, ReinforceConfig
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs.packed import float32_space
from automl_ext.rl.envs.vector import Envs, NoEnvs


class Walk(World):
    """An environment that is truncated after two steps; observations are vectors or small images of ``dtype``."""

    shape: tuple[int, ...] = (3,)
    dtype: Any = np.float64

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, self.shape, self.dtype)

    def move(self, action: int) -> tuple[float, bool, bool]:
        self.state = self.t % 3
        return 1.0, False, self.t == 2

    def observe(self) -> np.ndarray:
        return np.full(self.shape, self.state / 2, self.dtype)


class Image(Walk):
    shape = (5, 5, 2)


class Half(Walk):
    dtype = np.float16


class Bytes(Image):
    dtype = np.uint8


def agent_of(name: str, world: type[World]) -> Any:
    envs = envs_in(world, 4)
    if name == "a2c":
        return A2C(A2CConfig(hidden=(8,)), envs)
    if name == "reinforce":
        return Reinforce(ReinforceConfig(hidden=(8,)), envs)
    if name == "dreamer":
        sizes = {"deter": 4, "stoch": 2, "hidden": 4, "units": 4, "batch_size": 2, "sequence_length": 3}
        return Dreamer(DreamerConfig(**sizes, prefill=0, pretrain=1, horizon=2), envs)  # type: ignore[arg-type]
    return DQN(small(hidden=(8,), learning_starts=8, distributional=name == "c51"), envs)


@pytest.mark.parametrize("world", [Walk, Image, Half], ids=lambda w: w.__name__)
@pytest.mark.parametrize("name", ["dqn", "c51", "a2c", "reinforce", "dreamer"])
def test_float_observations_of_any_dtype(name: str, world: type[World]) -> None:
    if (name, world) == ("dreamer", Image):
        pytest.skip("dreamer takes only uint8 images of 64 × 64")
    agent = agent_of(name, world)
    assert agent.envs.observation_space.dtype == agent.envs.observations.dtype == np.float32
    step = agent.envs.step(np.zeros(4, np.int64))
    assert step.next_observations.dtype == np.float32
    agent.envs.reset()
    for _ in range(2):
        agent.iterate()
    if name in ("dqn", "c51"):
        assert agent.replay.sample(2).observations.dtype == torch.float32
    if name == "dreamer":
        agent.begin(np.ones(4, bool))
    assert agent.act(agent.envs.observations).shape == (4,)


def test_final_observations_are_float32_and_correct() -> None:
    envs = envs_in(Walk, 2, AutoresetMode.SAME_STEP)
    envs.step(np.zeros(2, np.int64))
    step = envs.step(np.zeros(2, np.int64))
    assert step.truncated.all()
    assert step.next_observations.dtype == np.float32
    assert (step.next_observations == 1).all()
    assert (envs.observations == 0).all()


def test_uint8_images_stay_uint8_in_the_replay() -> None:
    agent = agent_of("dqn", Bytes)
    agent.iterate()
    assert agent.envs.observations.dtype == np.uint8
    assert agent.replay.sample(2).observations.dtype == torch.uint8


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8])
def test_offline_on_any_dtype(dtype: Any) -> None:
    """NumPy converts Python's floats to float64."""
    rng = np.random.default_rng(0)
    found = recorded(Fork(limit=6), lambda: int(rng.integers(2)), 4)
    episodes = [e | {"observations": e["observations"].astype(dtype)} for e in found]
    assert episodes[0]["rewards"].dtype == np.float64
    space: Any = float32_space(spaces.Box(0, 1, (4,), dtype))
    agent = CQL(CQLConfig(hidden=(8,), batch_size=8), NoEnvs(space, spaces.Discrete(2), 1))
    agent.set_episodes(episodes)
    agent.iterate()
    assert agent.act(np.eye(4, dtype=space.dtype)).shape == (4,)
    expected = torch.from_numpy(np.zeros(1, space.dtype)).dtype
    assert agent.replay is not None
    assert agent.replay.sample(2).observations.dtype == expected


def test_environments_may_reuse_their_arrays() -> None:
    vector = gymnasium.vector.SyncVectorEnv([Walk, Walk], copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
    envs = Envs(vector, 0)
    steps = [envs.step(np.zeros(2, np.int64)) for _ in range(2)]
    assert [step.observations[0, 0] for step in steps] == [0, 0.5]
    assert [step.next_observations[0, 0] for step in steps] == [0.5, 1]
    assert [step.truncated[0] for step in steps] == [False, True]
