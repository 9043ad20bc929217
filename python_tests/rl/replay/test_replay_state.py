"""Seeds, saved states and stored data of the replays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay_world import World, go_on, kinds, make, make_with, same

import automl_ext
from automl_ext.rl import PrioritizedReplay, UniformReplay
from automl_ext.rl.envs.vector import Step
from automl_ext.training.files import checkpoint

FACTS = {"algorithm": "dqn", "config": {}, "environment": {}, "metrics_bytes": 0}

pytestmark = pytest.mark.usefixtures("each_backend")


@kinds
def test_equal_seeds_give_equal_batches(kind):
    runs = [go_on(World(3), make_with(kind, seed), 10) for seed in (5, 5, 6)]
    assert all(same(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(same(a, b) for a, b in zip(runs[0], runs[2], strict=True))


@kinds
@pytest.mark.parametrize("steps", [0, 1, 5, 7, 8, 40])
def test_loaded_replay_continues_bit_for_bit(kind, steps, tmp_path):
    """The state goes through a checkpoint on disk; the rings are empty, partly full, or full for several rounds."""
    world, twin = World(3, next_step=True), World(3, next_step=True)
    replay, other = make_with(kind, 1), make_with(kind, 2)
    go_on(world, replay, steps)
    go_on(twin, make_with(kind, 1), steps)
    go_on(World(3, seed=9), other, 11)  # must have no effect
    state = replay.state_dict()
    checkpoint.check_state(state)
    path = checkpoint.write(tmp_path, 1, {"replay": state}, FACTS)
    other.load_state_dict(checkpoint.read_state(path, checkpoint.read_manifest(path))["replay"])
    assert len(other) == len(replay)
    for a, b in zip(go_on(world, replay, 30), go_on(twin, other, 30), strict=True):
        assert same(a, b)


@kinds
def test_state_of_another_replay_is_refused(kind):
    replay = make(kind)
    for other, message in (
        (make(kind, 10), "20 transitions each, got one of 1 with 10"),
        (make(kind, n_envs=2), "1 environments"),
        (make(kind, shape=(3,)), "observations: expected float32 of shape"),
        (make(kind, dtype=np.uint8), "observations: .*got uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.load_state_dict(other.state_dict())
    (other,) = {UniformReplay, PrioritizedReplay} - {kind}
    for state in (make(other).state_dict(), {}):
        with pytest.raises(ValueError, match=f"state: expected that of a {kind.__name__}"):
            replay.load_state_dict(state)


@kinds
def test_images_stay_uint8_and_are_stored_once(kind):
    replay = make(kind, 50, 2, shape=(4, 12, 12), dtype=np.uint8)
    rng = np.random.default_rng(0)
    now = rng.integers(256, size=(2, 4, 12, 12), dtype=np.uint8)
    no, zero = np.zeros(2, bool), np.zeros(2)
    seen = [now]
    for _ in range(100):
        seen.append(rng.integers(256, size=(2, 4, 12, 12), dtype=np.uint8))
        replay.add(Step(seen[-2], np.zeros(2, np.int64), zero, seen[-1], no, no, ~no))
    batch = replay.sample(8)
    assert batch.observations.dtype == batch.next_observations.dtype == torch.uint8
    assert batch.observations.shape == (8, 4, 12, 12)
    stored = sum(x.numel() for x in replay.state_dict()["ring"].values() if isinstance(x, torch.Tensor) and x.dim() > 3)
    assert stored == 52 * 4 * 12 * 12  # 50 transitions, and the head of each ring
    frames = {frame.tobytes(): (t, b) for t, step in enumerate(seen) for b, frame in enumerate(step)}
    for a, b in zip(batch.observations, batch.next_observations, strict=True):
        t, env = frames[a.numpy().tobytes()]
        assert frames[b.numpy().tobytes()] == (t + 1, env)


@kinds
def test_memory_of_final_observations_is_reused(kind):
    """The memory of final observations of overwritten transitions is reused."""
    world, replay = World(2, end=0.6), make(kind, 20, 2)
    for _ in range(500):
        replay.add(world.step())
    assert len(replay.state_dict()["ring"]["apart"]) <= 32


def test_backends_give_the_same_batches():
    runs = []
    for backend in ("auto", "reference"):
        with automl_ext.backend(backend):
            runs.append(go_on(World(3), make_with(PrioritizedReplay, 0), 30))
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
