"""Replays of stacked frames, which store each frame once, against replays that store every stack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay_world import kinds, make, same

from automl_ext.rl import PrioritizedReplay, UniformReplay
from automl_ext.rl.envs.vector import Step

FRAME = (2, 3)  # height and width


class Stacks:
    """Random episodes of B environments whose observations are stacks [k, 2, 3] of unique random frames.

    Before an episode's first frame are zeros (as in ale-py), copies of it (as in Gymnasium), or frames of the life
    before; an episode ends by a termination, a truncation, or both. Sometimes an environment pauses (NEXT_STEP).
    """

    def __init__(self, n_envs, k, seed, end):
        self.rng, self.n_envs, self.k, self.end = np.random.default_rng(seed), n_envs, k, end
        self.now = np.stack([self.first(None) for _ in range(n_envs)])

    def frame(self):
        return self.rng.integers(256, size=FRAME, dtype=np.uint8)

    def first(self, last):
        how, frame = self.rng.integers(3), self.frame()[None]
        if how == 2 and last is not None:
            return last  # a life ends, and the game goes on
        before = np.zeros((self.k - 1, *FRAME), np.uint8) if how == 0 else np.repeat(frame, self.k - 1, 0)
        return np.concatenate([before, frame])

    def step(self):
        n = self.n_envs
        valid = self.rng.random(n) > 0.05
        after = np.stack([np.concatenate([now[1:], self.frame()[None]]) for now in self.now])
        terminated, truncated = self.rng.random((2, n)) < self.end / 2
        done = (terminated | truncated) & valid
        step = Step(
            self.now, self.rng.integers(5, size=n), self.rng.normal(size=n), after, terminated, truncated, valid
        )
        restart = done | ~valid
        self.now = np.stack([self.first(a) if r else a for a, r in zip(after, restart, strict=True)])
        return step


def pair(kind, n_envs, held, k, **kwargs):
    """Return a replay that stores each frame once, and one that stores every stack."""
    options = {"shape": (k, *FRAME), "dtype": np.uint8, **kwargs}
    return [make(kind, held * n_envs, n_envs, frame_stack=n, **options) for n in (k, 1)]


@kinds
@pytest.mark.parametrize(
    ("n_envs", "held", "k", "n_step", "end"),  # the probability that a step ends its episode
    [
        (1, 1, 4, 1, 0.4),
        (1, 2, 2, 3, 0.02),
        (3, 7, 4, 1, 0.02),
        (3, 8, 4, 5, 0.4),
        (2, 40, 2, 3, 0.4),
        (4, 25, 3, 20, 0.02),
        (2, 3, 8, 2, 0.02),
        (2, 3, 8, 2, 0.4),
    ],
)
def test_batches_equal_those_of_a_replay_of_whole_stacks(kind, n_envs, held, k, n_step, end):
    """Over many rounds of the rings, with cuts, and with a state that is loaded into other replays."""
    replays = pair(kind, n_envs, held, k, n_step=n_step)
    world, rng = Stacks(n_envs, k, held + n_step, end), np.random.default_rng(2)
    for number in range(200):
        step = world.step()
        for replay in replays:
            replay.add(step)
        if rng.random() < 0.02:
            for replay in replays:
                replay.cut()
            world.now = np.stack([world.first(None) for _ in range(n_envs)])
        if number == 100:
            others = pair(kind, n_envs, held, k, n_step=n_step, seed=5)
            for other, replay in zip(others, replays, strict=True):
                other.add(Stacks(n_envs, k, 3, end).step())
                other.load_state_dict(replay.state_dict())
            replays = others
        if len(replays[0]):
            ours, whole = (replay.sample(9) for replay in replays)
            assert same(ours, whole)
            if kind is PrioritizedReplay:
                errors = torch.from_numpy(rng.normal(size=9))
                for replay in replays:
                    replay.update_priorities(ours.indices, errors)
    ring = replays[0]._ring
    assert len(ring.before.array) - len(ring.before.free) <= n_envs * (held + 1)  # old first stacks are dropped


@pytest.mark.slow
def test_batches_of_atari_equal_those_of_a_replay_of_whole_stacks():
    pytest.importorskip("ale_py")
    from automl_ext.rl import EnvOptions, make_envs

    envs, rng = make_envs("ALE/Breakout-v5", 3, 0, EnvOptions()), np.random.default_rng(0)
    replays = [make(PrioritizedReplay, 600, 3, (4, 84, 84), np.uint8, n_step=3, frame_stack=n) for n in (4, 1)]
    for number in range(1000):
        step = envs.step(rng.integers(4, size=3))
        for replay in replays:
            replay.add(step)
        if number % 5 == 0:
            assert same(*(replay.sample(16) for replay in replays))
    assert envs.episodes
    envs.close()


def test_memory_of_a_million_atari_transitions():
    """1,000,000 transitions with priorities take at most 7.5 GB, with episodes of 800 steps (Pong has more)."""
    n, held = 4, 2_000
    replay = make(PrioritizedReplay, n * held, n, (4, 84, 84), np.uint8, frame_stack=4)
    now, no = np.zeros((n, 4, 84, 84), np.uint8), np.zeros(n, bool)
    for t in range(held + 10):
        replay.add(Step(now, np.zeros(n, int), np.zeros(n), now, no, no | ((t + 1) % 800 == 0), ~no))
    ring = replay._ring
    arrays = ring.observations, ring.actions, ring.steps, ring.apart.array, ring.before.array
    assert len(replay) == n * held
    assert sum(x.nbytes for x in arrays) + 10.3 * ring.rows <= 7_500 * n * held
    state = replay.state_dict()
    assert (
        sum(x.nbytes for x in (*state["ring"].values(), state["priorities"]) if torch.is_tensor(x)) <= 7_500 * n * held
    )


def test_what_is_no_stack_is_refused():
    with pytest.raises(ValueError, match=r"frame_stack: expected observation_shape\[0\], got 4 with shape \(3, 2, 3\)"):
        make(UniformReplay, shape=(3, *FRAME), frame_stack=4)
    world, (replay, _) = Stacks(2, 3, 0, 0.0), pair(UniformReplay, 2, 9, 3)
    step = world.step()._replace(valid=np.ones(2, bool))
    after = step.next_observations.copy()
    after[1, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="next_observations: in environment 1 not observations without their first"):
        replay.add(step._replace(next_observations=after))
    assert not len(replay)
    replay.add(step)
    with pytest.raises(ValueError, match="observations: in environment 0 not the next_observations"):
        replay.add(step)


def test_state_of_whole_stacks_is_refused():
    ours, whole = pair(UniformReplay, 2, 9, 3)
    with pytest.raises(ValueError, match="observations: expected"):
        ours.load_state_dict(whole.state_dict())
