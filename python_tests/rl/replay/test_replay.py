"""Sampled windows, compared with a list of all transitions; known bugs of other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from replay_world import World, by_observation, check_batch, episode, kinds, make

from automl_ext.rl import PrioritizedReplay, UniformReplay

pytestmark = pytest.mark.usefixtures("each_backend")


@kinds
@pytest.mark.parametrize("next_step", [False, True], ids=["SAME_STEP", "NEXT_STEP"])
@pytest.mark.parametrize(
    ("n_envs", "held", "n_step"), [(1, 1, 1), (1, 9, 3), (3, 7, 1), (3, 8, 5), (2, 5, 20), (4, 30, 3)]
)
def test_every_window_equals_the_recorded_one(kind, next_step, n_envs, held, n_step):
    """Random episodes over several rounds of the rings. In the end every stored transition has been sampled."""
    world = World(n_envs, seed=held + n_step, next_step=next_step)
    replay = make(kind, held * n_envs, n_envs, n_step=n_step, gamma=0.9)
    rng = np.random.default_rng(1)
    for step in range(5 * held + 20):
        replay.add(world.step())
        if step % 7 == 0:
            batch = replay.sample(16)
            check_batch(world, batch, held, n_step, 0.9)
            if kind is PrioritizedReplay:
                replay.update_priorities(batch.indices, torch.from_numpy(rng.normal(size=16)))
        assert len(replay) == sum(min(len(past), held) for past in world.past)
    batches = [replay.sample(32) for _ in range(40)]
    seen = set().union(*(check_batch(world, batch, held, n_step, 0.9) for batch in batches))
    if kind is UniformReplay:
        assert len(seen) == len(replay)


@kinds
def test_truncation_bootstraps_from_the_final_observation(kind):
    replay = make(kind, gamma=0.5)
    episode(replay, [1, 2], truncated=True)
    episode(replay, [4, 8], terminated=True, first=10)
    episode(replay, [16], first=20)
    assert by_observation(replay) == {
        0: (1, 0.5, 1, False),
        1: (2, 0.5, 2, False),  # 2 is the final observation, not 10, the next episode's first
        10: (4, 0.5, 11, False),
        11: (8, 0, 12, True),
        20: (16, 0.5, 21, False),
    }


@kinds
def test_n_step_windows_do_not_cross_an_episode_and_keep_the_last_starts(kind):
    """CleanRL's Rainbow and FastTD3 crossed episodes; other libraries dropped the last n − 1 starts."""
    for flag in ("terminated", "truncated"):
        replay = make(kind, gamma=0.5, n_step=3)
        episode(replay, [1, 1, 1, 1], **{flag: True})
        episode(replay, [1e6, 1e6], first=10)
        live = flag == "truncated"
        windows = by_observation(replay)
        assert windows[0] == (1.75, 0.125, 3, False)
        assert windows[1] == (1.75, live * 0.125, 4, not live)
        assert windows[2] == (1.5, live * 0.25, 4, not live)
        assert windows[3] == (1, live * 0.5, 4, not live)
        assert windows[10] == (1.5e6, 0.25, 12, False)


@kinds
def test_n_step_windows_do_not_cross_the_rings_head(kind):
    """After a full round, the slot after the newest step holds the oldest step."""
    replay = make(kind, 4, gamma=0.5, n_step=3)
    episode(replay, [1e6, 1e6, 1e6, 1, 1, 1, 1])
    assert by_observation(replay) == {
        3: (1.75, 0.125, 6, False),
        4: (1.75, 0.125, 7, False),
        5: (1.5, 0.25, 7, False),
        6: (1, 0.5, 7, False),
    }


@kinds
def test_invalid_transitions_are_not_sampled(kind):
    """The step after an episode's end in mode NEXT_STEP, which CleanRL sampled."""
    replay = make(kind, gamma=0.5, n_step=2)
    episode(replay, [1, 1], truncated=True)
    episode(replay, [1e6], first=2, valid=False)
    episode(replay, [1], first=10)
    assert len(replay) == 3
    assert by_observation(replay) == {0: (1.5, 0.25, 2, False), 1: (1, 0.5, 2, False), 10: (1, 0.5, 11, False)}


@kinds
def test_window_ends_before_an_invalid_step_or_a_cut(kind):
    for how in ("invalid", "cut"):
        replay = make(kind, gamma=0.5, n_step=3)
        episode(replay, [1, 1])
        if how == "cut":
            replay.cut()
            replay.cut()  # a second call changes nothing
        else:
            episode(replay, [math.nan], first=77, valid=False)
        episode(replay, [1e6, 1], first=10)
        assert by_observation(replay) == {
            0: (1.5, 0.25, 2, False),
            1: (1, 0.5, 2, False),
            10: (1e6 + 0.5, 0.25, 12, False),
            11: (1, 0.5, 12, False),
        }


@kinds
def test_terminated_overrides_truncated(kind):
    replay = make(kind)
    episode(replay, [1], terminated=True, truncated=True)
    assert by_observation(replay) == {0: (1, 0, 1, True)}


def chi_square(counts, expected):
    return (((counts - expected) ** 2) / expected).sum()


def limit(freedom):
    return freedom + 5 * math.sqrt(2 * freedom)


def counted(replay, batches, batch_size):
    seen = np.concatenate([replay.sample(batch_size).indices.numpy() for _ in range(batches)])
    return np.unique(seen, return_counts=True)


def test_uniform_frequencies():
    """Environments hold different numbers of transitions."""
    world = World(3, seed=1, next_step=True, end=0.5)
    replay = make(UniformReplay, 60, 3)
    for _ in range(15):
        replay.add(world.step())
    assert len({len(past) for past in world.past}) > 1
    indices, counts = counted(replay, 400, 64)
    assert len(indices) == len(replay)
    assert chi_square(counts, 400 * 64 / len(replay)) < limit(len(replay) - 1)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_prioritized_frequencies_and_weights(alpha):
    """P(i) = p_i^α / Σ p^α with p = |δ| + eps, and w_i = (N P(i))^−β divided by the largest of the batch."""
    world = World(2)
    replay = make(PrioritizedReplay, 40, 2, alpha=alpha, beta=0.7, eps=0.01)
    for _ in range(33):
        replay.add(world.step())
    indices, _ = counted(replay, 100, 64)
    assert len(indices) == 40
    errors = np.random.default_rng(4).normal(size=40) ** 3
    replay.update_priorities(torch.from_numpy(indices), torch.from_numpy(errors))
    expected = (np.abs(errors) + 0.01) ** alpha
    expected /= expected.sum()
    found, counts = counted(replay, 250, 256)
    at = np.searchsorted(indices, found)
    assert chi_square(counts, 64_000 * expected[at]) < limit(39)
    assert expected[np.setdiff1d(np.arange(40), at)].sum() < 1e-3
    batch = replay.sample(64)
    weights = (40 * expected[np.searchsorted(indices, batch.indices.numpy())]) ** -0.7
    np.testing.assert_allclose(batch.weights.numpy(), weights / weights.max(), rtol=1e-6)
    assert batch.weights.max() == 1


def test_new_transitions_get_the_largest_priority_so_far():
    replay = make(PrioritizedReplay, alpha=1.0, eps=1e-6)
    episode(replay, [0, 0, 0])
    batch = replay.sample(3)
    replay.update_priorities(batch.indices, torch.tensor([1e-6, 5.0, 1e-6]))
    replay.update_priorities(batch.indices, torch.full((3,), 1e-6))
    episode(replay, [0], first=3)
    assert (replay.sample(1000).observations[:, 0] == 3).float().mean() > 0.999


def test_last_error_of_a_repeated_index_counts():
    replay = make(PrioritizedReplay, alpha=1.0)
    episode(replay, [0, 0])
    first, second = replay.sample(2).indices
    replay.update_priorities(torch.stack([first, second, first]), torch.tensor([-1e9, 1.0, 0.0]))
    assert (replay.sample(1000).indices == second).float().mean() > 0.99


def test_priorities_of_overwritten_transitions_are_ignored():
    """Their rows now hold other transitions or none, whose priorities must not change."""
    replay = make(PrioritizedReplay, 3, alpha=1.0)
    episode(replay, [0, 0, 0])
    old = replay.sample(3).indices
    assert len(set(old.tolist())) == 3
    for round_ in range(4):  # the free slot visits every row
        episode(replay, [0], first=3 + round_)
        before = replay.state_dict()["priorities"]
        replay.update_priorities(old[: round_ + 1], torch.full((min(round_ + 1, 3),), 1e6))
        assert torch.equal(replay.state_dict()["priorities"], before)
        assert before.count_nonzero() == 3
    assert not set(replay.sample(30).indices.tolist()) & set(old.tolist())


def test_beta_rises_to_one():
    replay = make(PrioritizedReplay, beta=0.4, beta_steps=4)
    episode(replay, [0])
    seen = []
    for _ in range(6):
        seen.append(replay.beta)
        replay.sample(1)
    assert seen == pytest.approx([0.4, 0.55, 0.7, 0.85, 1.0, 1.0])
    assert make(PrioritizedReplay).beta == 0.4
