"""The replay of episodes: windows, and exact saving and loading."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from compare_runs import same
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rl_worlds import Scripted

from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.replay.sequences import SequenceReplay


def filled(mode: AutoresetMode = AutoresetMode.NEXT_STEP, steps: int = 60, capacity: int = 1000) -> SequenceReplay:
    """Fill a replay from Scripted, whose observations are environment, episode and step. Actions are step mod 5."""
    envs = Envs(SyncVectorEnv([functools.partial(Scripted, i) for i in range(3)], autoreset_mode=mode), 0)
    replay = SequenceReplay(capacity, 5, 3, np.random.default_rng(0))
    for _ in range(steps):
        actions = envs.observations[:, 2].astype(int) % 5
        replay.add(envs.step(actions), np.eye(5, dtype=np.float32)[actions])
    assert len(replay) == sum(e.length for e in replay.episodes) + sum(e.length for e in replay.going_on if e)
    return replay


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("length", [2, 3, 7])
def test_windows_lie_within_an_episode(mode: AutoresetMode, length: int) -> None:
    batch = filled(mode).sample(500, length)
    assert batch.observations.shape == (length, 500, 3)
    assert batch.actions.shape == (length, 500, 5)
    seen_ends, seen_starts = 0, 0
    for b in range(500):
        n = int(batch.valid[:, b].sum())
        assert batch.valid[:n, b].all()  # padding comes last
        env, episode, step = batch.observations[:n, b].T
        assert (env == env[0]).all()
        assert (episode == episode[0]).all()
        assert (step == step[0] + torch.arange(n)).all()
        last = 2 + int(env[0] + episode[0]) % 3
        assert step[-1] <= last
        assert n == length or (step[0] == 0 and n <= last + 1)  # padded only if the episode is shorter
        assert batch.has_reward[:, b].tolist() == [*(step > 0).tolist(), *[False] * (length - n)]
        for t in range(n):
            if step[t] == 0:
                assert not batch.actions[t, b].any()
                assert batch.rewards[t, b] == 0
            else:
                assert batch.actions[t, b].argmax() == (step[t] - 1) % 5
                assert batch.rewards[t, b] == (step[t] - 1) % 5 + 10 * step[t]
            natural = bool(step[t] == last) and int(episode[0]) % 2 == 0
            assert bool(batch.terminated[t, b]) == natural
        seen_ends += int(step[-1] == last)
        seen_starts += int(step[0] == 0)
        assert not batch.terminated[n:, b].any()
    assert seen_ends > 50
    assert seen_starts > 50


def test_oldest_episodes_are_removed_first() -> None:
    replay = filled(capacity=20)
    assert 15 < replay.rows <= 20
    newest = max(int(e.arrays["observations"][0, 1]) for e in replay.episodes)
    assert min(int(e.arrays["observations"][0, 1]) for e in replay.episodes) >= newest - 3
    one = filled(capacity=1)
    assert len(one.episodes) == 1


def test_images_stay_uint8() -> None:
    from automl_ext.rl.envs.vector import Step

    replay = SequenceReplay(100, 1, 1, np.random.default_rng(0))
    image, no = np.full((1, 4, 4, 3), 7, np.uint8), np.zeros(1, bool)
    for _ in range(3):
        replay.add(Step(image, np.zeros(1), np.ones(1, np.float32), image, no, no, ~no), np.zeros((1, 1), np.float32))
    assert replay.sample(2, 3).observations.dtype == torch.uint8
    assert replay.state_dict()["arrays"]["observations"].dtype == torch.uint8


def test_loaded_replay_equals_saved_replay() -> None:
    replay, other = filled(steps=31), SequenceReplay(1000, 5, 3, np.random.default_rng(9))
    other.load_state_dict(replay.state_dict())
    same(replay.state_dict(), other.state_dict())
    for _ in range(3):
        for x, y in zip(replay.sample(8, 4), other.sample(8, 4), strict=True):
            assert torch.equal(x, y)
    for r in (replay, other):
        r.cut()
    same(replay.state_dict(), other.state_dict())
    assert all(e is None for e in other.going_on)
    with pytest.raises(ValueError, match="environments: expected 2, got 3"):
        SequenceReplay(1000, 5, 2, np.random.default_rng(0)).load_state_dict(replay.state_dict())
    with pytest.raises(ValueError, match="actions: expected 4 numbers each, got 5"):
        SequenceReplay(1000, 4, 3, np.random.default_rng(0)).load_state_dict(replay.state_dict())


def test_empty_replay() -> None:
    replay = SequenceReplay(10, 1, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="the replay is empty"):
        replay.sample(1, 2)
    again = SequenceReplay(10, 1, 1, np.random.default_rng(0))
    again.load_state_dict(replay.state_dict())
    assert len(again) == 0


def test_an_endless_episode_does_not_fill_the_memory() -> None:
    replay = SequenceReplay(20, 1, 2, np.random.default_rng(0))
    for t in range(200):
        rows = np.full((2, 1), t, np.float32)
        no = np.zeros(2, bool)
        replay.add(Step(rows, no, np.zeros(2, np.float32), rows + 1, no, no, ~no), np.zeros((2, 1), np.float32))
        assert len(replay) <= 40
    values = replay.sample(50, 5).observations[..., 0]
    assert values.min() > 175  # the newest rows
    assert (values.diff(dim=0) == 1).all()  # of consecutive steps
