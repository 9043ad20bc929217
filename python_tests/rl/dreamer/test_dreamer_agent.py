"""The Dreamer agent: learning, observations, the recurrent state of its policy, and its settings."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from dreamer_worlds import SIZES, TINY, point_on_line
from gymnasium import spaces
from rl_worlds import Scripted

from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import NoEnvs
from automl_ext.rl.loop.evaluate import evaluate
from automl_ext.rl.loop.train_config import envs_of
from automl_ext.rl.presets import preset
from automl_ext.training.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [False, True])
def test_learns_to_move_right(continuous: bool) -> None:
    """The return is about 6.5 when always moving right, 0 at random and −6.5 when always moving left."""
    config = dataclasses.replace(
        TINY,
        env_id=point_on_line(continuous),
        prefill=200,
        batch_size=8,
        sequence_length=10,
        horizon=6,
        continue_scale=0.0,
        model_lr=3e-3,
        actor_lr=3e-3,
        value_lr=3e-3,
        free_nats=0.1,
        entropy_scale=1e-2,
    )
    agent = Dreamer(config)
    for _ in range(40):
        agent.iterate()
    agent.update(150)
    assert evaluate(agent.act, envs_of(config, 10, 1), agent.begin).mean() > 4.5


def test_image_observations() -> None:
    config = preset("pixels", dataclasses.replace(TINY, env_id=point_on_line(True, True)))
    small = {name: getattr(TINY, name) for name in (*SIZES, "prefill", "pretrain", "batch_size", "sequence_length")}
    agent = Dreamer(dataclasses.replace(config, **small, train_every=50, horizon=3, env=EnvOptions()))
    agent.iterate()
    agent.update(1)
    assert agent.replay.episodes[0].arrays["observations"].dtype == np.uint8
    sequences = agent.replay.sample(3, 5)
    first, *_, last = (agent.learn_dynamics(sequences)[1]["observation_loss"] for _ in range(16))
    assert last < first
    prepared = agent.model.prepare(sequences.observations)
    decoded = agent.model.decode(torch.zeros(5, 3, agent.model.features))
    assert decoded.shape == prepared.shape


def test_images_are_normalized_by_their_running_statistics() -> None:
    """The mean of every pixel, and one standard deviation; not with the preset of the paper."""
    space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    images = torch.randint(256, (20, 64, 64, 3), dtype=torch.uint8)
    images[:, :32] = 200  # never moves
    model = Dreamer(TINY, NoEnvs(space, spaces.Discrete(2), 1)).model  # type: ignore[arg-type]
    assert model.norm is not None
    model.norm.update(images[:8])
    model.norm.update(images[8:])
    prepared = model.prepare(images)
    assert prepared.dtype == torch.float32
    assert not prepared[:, :32].any()
    torch.testing.assert_close(prepared.mean(0), torch.zeros(64, 64, 3), atol=1e-5, rtol=0)
    assert prepared.square().mean().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(model.shown(prepared), images.float() / 255 - 0.5)
    assert model.observation_std == TINY.observation_std

    config = dataclasses.replace(TINY, normalize_images=preset("paper", DreamerConfig()).normalize_images)
    model = Dreamer(config, NoEnvs(space, spaces.Discrete(2), 1)).model  # type: ignore[arg-type]
    assert model.norm is None
    assert model.observation_std == 1
    torch.testing.assert_close(model.prepare(images), images.float() / 255 - 0.5)
    torch.testing.assert_close(model.shown(model.prepare(images)), images.float() / 255 - 0.5)


def test_unsupported_observation_spaces_are_refused() -> None:
    config = dataclasses.replace(TINY, env_id="FrozenLake-v1")
    with pytest.raises(UserError, match=r"dreamer: expected arrays .* got Discrete\(16\)"):
        Dreamer(config)
    empty = NoEnvs(spaces.Box(-1, 1, (0,), np.float32), spaces.Discrete(2), 1)
    with pytest.raises(UserError, match="observations: expected vectors of floats or uint8 images"):
        Dreamer(TINY, empty)  # type: ignore[arg-type]


def test_state_of_act_is_reset_where_episodes_start() -> None:
    agent = Dreamer(dataclasses.replace(TINY, env_id="Pendulum-v1", n_envs=2))
    agent.begin(np.array([True, True]))
    rng = np.random.default_rng(0)
    first = rng.standard_normal((3, 2, 3)).astype(np.float32)
    expected = [agent.act(x) for x in first]
    agent.act(first[0])
    agent.begin(np.array([True, False]))
    actual = [agent.act(x) for x in first]
    for t in range(3):
        assert np.array_equal(expected[t][0], actual[t][0])
        assert not np.array_equal(expected[t][1], actual[t][1])
    agent.begin(np.ones(5, bool))  # another number of environments
    assert agent.act(np.zeros((5, 3), np.float32)).shape == (5, 1)


def test_training_state_is_reset_where_episodes_start() -> None:
    """Episodes of Scripted have two to four steps; the state is zero at each first observation."""
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    from automl_ext.rl.envs.vector import Envs

    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        vector = SyncVectorEnv([functools.partial(Scripted, i) for i in range(2)], autoreset_mode=mode)
        agent = Dreamer(dataclasses.replace(TINY, prefill=0), Envs(vector, 0))
        starts = []
        for _ in range(20):
            starting = agent.envs.starting
            assert np.array_equal(starting, agent.envs.observations[:, 2] == 0)
            agent.state = agent.state.reset(starting)
            assert agent.state.deter[starting].abs().sum() == 0
            assert agent.state.action[~starting].abs().sum(1).bool().all()
            starts.append(starting)
            actions = agent.explore(agent.envs.observations)
            agent.envs.step(agent.actions.to_env(actions))
        assert np.sum(starts, 0).min() >= 4


def test_preset_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--preset: expected one of .*, got 'minatar'"):
        preset("minatar", DreamerConfig())
