"""Uniform and prioritised replay, against a recorder that keeps every transition in a list."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import automl_ext
from automl_ext.rl import PrioritizedReplay, UniformReplay
from automl_ext.training import checkpoint

KINDS = [UniformReplay, PrioritizedReplay]
kinds = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("each_backend")


def make(kind, capacity=20, n_envs=1, shape=(2,), dtype=np.float32, seed=0, **kwargs):
    return kind(capacity, shape, dtype, n_envs=n_envs, generator=np.random.default_rng(seed), **kwargs)


class World:
    """Random episodes in B environments, as the adapter hands them on; keeps what a replay must hold.

    An observation is a number never used again, and so tells which step it is of. Environment b's
    transitions are ``past[b]``: (obs, action, reward, next_obs, terminated, truncated, goes_on).
    """

    def __init__(self, n_envs, seed=0, next_step=False, end=0.2):
        self.rng, self.n_envs, self.next_step, self.end = np.random.default_rng(seed), n_envs, next_step, end
        self.serial = 0
        self.now = [self.new() for _ in range(n_envs)]
        self.resetting = [False] * n_envs
        self.past = [[] for _ in range(n_envs)]

    def new(self):
        self.serial += 1
        return self.serial

    def step(self):
        """The next arguments of add()."""
        out = []
        for b in range(self.n_envs):
            if self.resetting[b]:  # NEXT_STEP: the action is ignored, the reward 0; NaN here must reach nothing
                first = self.new()
                out.append((self.now[b], -1, math.nan, first, False, False, False))
                self.now[b], self.resetting[b] = first, False
                continue
            after = self.new()
            terminated, truncated = (self.rng.random(2) < self.end / 2).tolist()
            row = (self.now[b], self.serial % 7, float(self.rng.normal()), after, terminated, truncated)
            out.append((*row, True))
            self.past[b].append((*row, not (terminated or truncated)))
            self.now[b] = after
            if terminated or truncated:
                self.resetting[b] = self.next_step
                if not self.next_step:
                    self.now[b] = self.new()
        obs, action, reward, after, terminated, truncated, valid = (np.array(x) for x in zip(*out, strict=True))
        pair = lambda x: np.stack([x, x + 0.5], axis=1).astype(np.float32)  # noqa: E731
        return pair(obs), action, reward, pair(after), terminated, truncated, valid

    def window(self, b, start, n_step, gamma):
        """Plain n-step rule: return, discount, next observation, terminated."""
        total, past = 0.0, self.past[b]
        for k in range(n_step):
            _, _, reward, after, terminated, _, goes_on = past[start + k]
            total += gamma**k * reward
            if not goes_on or start + k + 1 == len(past):
                break
        return total, 0.0 if terminated else gamma ** (k + 1), after, terminated


def check_batch(world, batch, held, n_step, gamma):
    """Each sampled window is that of the recorder, and its transition is among those held. Returns which were seen."""
    where = {row[0]: (b, t) for b, past in enumerate(world.past) for t, row in enumerate(past)}
    seen = set()
    for i in range(len(batch.indices)):
        b, t = where[int(batch.observations[i, 0])]
        assert len(world.past[b]) - held <= t
        value, discount, after, terminated = world.window(b, t, n_step, gamma)
        assert batch.observations[i].tolist() == [world.past[b][t][0], world.past[b][t][0] + 0.5]
        assert batch.next_observations[i].tolist() == [after, after + 0.5]
        assert batch.actions[i] == world.past[b][t][1]
        assert batch.returns[i].item() == pytest.approx(value, rel=1e-5, abs=1e-5)
        assert batch.discounts[i].item() == pytest.approx(discount, rel=1e-6)
        assert batch.terminated[i].item() == terminated
        seen.add((b, t))
    return seen


@kinds
@pytest.mark.parametrize("next_step", [False, True], ids=["SAME_STEP", "NEXT_STEP"])
@pytest.mark.parametrize(("n_envs", "held", "n_step"), [(1, 1, 1), (1, 9, 3), (3, 7, 1), (3, 8, 5), (2, 5, 20), (4, 30, 3)])
def test_every_window_is_the_recorders(kind, next_step, n_envs, held, n_step):
    """Random episodes, far beyond the first round of the rings; in the end every transition held has been sampled."""
    world = World(n_envs, seed=held + n_step, next_step=next_step)
    replay = make(kind, held * n_envs, n_envs, n_step=n_step, gamma=0.9)
    rng = np.random.default_rng(1)
    for step in range(5 * held + 20):
        replay.add(*world.step())
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


def episode(replay, rewards, *, terminated=False, truncated=False, first=0, valid=None):
    """One episode of one environment with observations first, first + 1, …"""
    for t, reward in enumerate(rewards):
        last = t == len(rewards) - 1
        obs, after = (np.full((1, 2), first + t + k, np.float32) for k in (0, 1))
        ends = [np.array([last and flag]) for flag in (terminated, truncated)]
        replay.add(obs, np.array([0]), np.array([reward]), after, *ends, valid)


def by_observation(replay, draws=300):
    """The window that starts at each observation: (return, discount, next observation, terminated)."""
    batch = replay.sample(draws)
    columns = batch.observations[:, 0], batch.returns, batch.discounts, batch.next_observations[:, 0], batch.terminated
    return {row[0]: row[1:] for row in zip(*(x.tolist() for x in columns), strict=True)}


@kinds
def test_a_truncation_bootstraps_from_the_final_observation(kind):
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
    """cleanrl's rainbow and FastTD3 #6, #7 crossed; others dropped the last n - 1 starts."""
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
    """After a full round the slot after the newest step holds the oldest one."""
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
    """cleanrl #499: NEXT_STEP's step after a done."""
    replay = make(kind, gamma=0.5, n_step=2)
    episode(replay, [1, 1], truncated=True)
    episode(replay, [1e6], first=2, valid=np.array([False]))
    episode(replay, [1], first=10)
    assert len(replay) == 3
    assert by_observation(replay) == {0: (1.5, 0.25, 2, False), 1: (1, 0.5, 2, False), 10: (1, 0.5, 11, False)}


@kinds
def test_a_window_ends_before_an_invalid_step_or_a_cut(kind):
    for how in ("invalid", "cut"):
        replay = make(kind, gamma=0.5, n_step=3)
        episode(replay, [1, 1])
        if how == "cut":
            replay.cut()
            replay.cut()  # once more changes nothing
        else:
            episode(replay, [math.nan], first=77, valid=np.array([False]))
        episode(replay, [1e6, 1], first=10)
        assert by_observation(replay) == {
            0: (1.5, 0.25, 2, False),
            1: (1, 0.5, 2, False),
            10: (1e6 + 0.5, 0.25, 12, False),
            11: (1, 0.5, 12, False),
        }


@kinds
def test_terminated_wins_over_truncated(kind):
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
    """Also where one environment holds fewer transitions than another."""
    world = World(3, seed=1, next_step=True, end=0.5)
    replay = make(UniformReplay, 60, 3)
    for _ in range(15):
        replay.add(*world.step())
    assert len({len(past) for past in world.past}) > 1
    indices, counts = counted(replay, 400, 64)
    assert len(indices) == len(replay)
    assert chi_square(counts, 400 * 64 / len(replay)) < limit(len(replay) - 1)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_prioritised_frequencies_and_weights(alpha):
    """P(i) = p_i^α / Σ p^α with p = |δ| + eps, and w_i = (N P(i))^-β over the largest of the minibatch."""
    world = World(2)
    replay = make(PrioritizedReplay, 40, 2, alpha=alpha, beta=0.7, eps=0.01)
    for _ in range(33):
        replay.add(*world.step())
    indices, _ = counted(replay, 100, 64)
    assert len(indices) == 40
    errors = np.random.default_rng(4).normal(size=40) ** 3
    replay.update_priorities(torch.from_numpy(indices), torch.from_numpy(errors))
    expected = (np.abs(errors) + 0.01) ** alpha
    expected /= expected.sum()
    found, counts = counted(replay, 1000, 64)
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


def test_only_the_last_error_of_a_repeated_index_counts():
    replay = make(PrioritizedReplay, alpha=1.0)
    episode(replay, [0, 0])
    first, second = replay.sample(2).indices
    replay.update_priorities(torch.stack([first, second, first]), torch.tensor([-1e9, 1.0, 0.0]))
    assert (replay.sample(1000).indices == second).float().mean() > 0.99


def test_overwritten_transitions_are_passed_over():
    """Their rows hold others by now, or none: an old index must not give those a priority."""
    replay = make(PrioritizedReplay, 3, alpha=1.0)
    episode(replay, [0, 0, 0])
    old = replay.sample(3).indices
    assert len(set(old.tolist())) == 3
    for round_ in range(4):  # the free slot comes by every row
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


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def generators(seed):
    return np.random.default_rng(seed), torch.Generator().manual_seed(seed)


def make_with(kind, generator):
    return kind(21, (2,), n_envs=3, n_step=3, generator=generator, **{"beta_steps": 9} if kind is PrioritizedReplay else {})


def go_on(world, replay, steps):
    batches = []
    for _ in range(steps):
        replay.add(*world.step())
        batches.append(replay.sample(5))
        if isinstance(replay, PrioritizedReplay):
            replay.update_priorities(batches[-1].indices, batches[-1].returns)
    return batches


@kinds
@pytest.mark.parametrize("which", [0, 1], ids=["numpy", "torch"])
def test_equal_seeds_give_equal_batches(kind, which):
    runs = [go_on(World(3), make_with(kind, generators(seed)[which]), 10) for seed in (5, 5, 6)]
    assert all(same(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(same(a, b) for a, b in zip(runs[0], runs[2], strict=True))


@kinds
@pytest.mark.parametrize("which", [0, 1], ids=["numpy", "torch"])
@pytest.mark.parametrize("steps", [0, 1, 5, 7, 8, 40])
def test_saved_and_loaded_goes_on_alike(kind, which, steps, tmp_path):
    """Through the checkpoint on disk, with the rings empty, part full and far round; then bit for bit."""
    world, twin = World(3, next_step=True), World(3, next_step=True)
    replay, other = (make_with(kind, generators(seed)[which]) for seed in (1, 2))
    go_on(world, replay, steps)
    go_on(twin, make_with(kind, generators(1)[which]), steps)
    go_on(World(3, seed=9), other, 11)  # leaves no trace
    state = replay.state_dict()
    checkpoint.check_state(state)
    path = checkpoint.write(tmp_path, 1, {"replay": state}, {})
    other.load_state_dict(checkpoint.read_state(path, checkpoint.read_manifest(path))["replay"])
    assert len(other) == len(replay)
    for a, b in zip(go_on(world, replay, 30), go_on(twin, other, 30), strict=True):
        assert same(a, b)


@kinds
def test_states_of_other_replays_are_refused(kind):
    replay = make(kind)
    for other, message in (
        (make(kind, 10), "20 transitions each, got one of 1 with 10"),
        (make(kind, n_envs=2), "1 environments"),
        (make(kind, shape=(3,)), "observations: expected float32 of shape"),
        (make(kind, dtype=np.uint8), "observations: .*got uint8"),
        (make_with(kind, generators(0)[1]), "generator"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.load_state_dict(other.state_dict())


@kinds
def test_images_stay_uint8_and_are_stored_once(kind):
    replay = make(kind, 50, 2, shape=(4, 12, 12), dtype=np.uint8)
    rng = np.random.default_rng(0)
    now = rng.integers(256, size=(2, 4, 12, 12), dtype=np.uint8)
    no, zero = np.zeros(2, bool), np.zeros(2)
    seen = [now]
    for _ in range(100):
        seen.append(rng.integers(256, size=(2, 4, 12, 12), dtype=np.uint8))
        replay.add(seen[-2], np.zeros(2, np.int64), zero, seen[-1], no, no)
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
def test_final_observations_do_not_pile_up(kind):
    """What was kept apart for overwritten transitions is used again."""
    world, replay = World(2, end=0.6), make(kind, 20, 2)
    for _ in range(500):
        replay.add(*world.step())
    assert len(replay.state_dict()["ring"]["apart"]) <= 32


def step(**changes):
    no = np.zeros(2, bool)
    good = {
        "observations": np.ones((2, 2), np.float32),
        "actions": np.zeros(2, np.int64),
        "rewards": np.zeros(2),
        "next_observations": np.ones((2, 2), np.float32),
        "terminated": no,
        "truncated": no,
    }
    return good | changes


NAN = np.array([[0, 0], [0, math.nan]], np.float32)
BAD_STEPS = {
    "reward nan": (dict(rewards=np.array([0, math.nan])), ValueError, "rewards: .*got nan in environment 1"),
    "reward inf": (dict(rewards=np.array([math.inf, 0])), ValueError, "rewards: .*got inf in environment 0"),
    "observation nan": (dict(observations=NAN), ValueError, "^observations: NaN in environment 1"),
    "next nan": (dict(next_observations=NAN), ValueError, "next_observations: NaN in environment 1"),
    "shape": (dict(observations=np.ones((2, 3))), ValueError, r"observations: expected shape \(2, 2\), got \(2, 3\)"),
    "one env": (dict(rewards=np.zeros(1)), ValueError, r"rewards: expected shape \(2,\), got \(1,\)"),
    "flags": (dict(terminated=np.zeros(2)), TypeError, "terminated: expected bool, got float64"),
    "valid": (dict(valid=[1, 0]), TypeError, "valid: expected bool"),
    "actions": (dict(actions=np.zeros(2)), TypeError, "actions: expected int64, got float64"),
    "objects": (dict(rewards=np.array([None, 1])), TypeError, "rewards: expected float32, got object"),
    "not the next": (
        dict(observations=np.array([[1, 1], [2, 1]])),
        ValueError,
        "observations: in environment 1 not the next_observations",
    ),
}


@kinds
@pytest.mark.parametrize("bad", BAD_STEPS)
def test_bad_steps_are_refused_whole(kind, bad):
    changes, error, message = BAD_STEPS[bad]
    replay, clean = make(kind, 8, 2), make(kind, 8, 2)
    for one in (replay, clean):
        one.add(**step())
    with pytest.raises(error, match=message):
        replay.add(**step(**changes))
    for one in (replay, clean):
        one.add(**step())
    assert same(replay.sample(50), clean.sample(50))


def test_floats_are_not_cast_to_images():
    replay = make(UniformReplay, 8, 2, dtype=np.uint8)
    with pytest.raises(TypeError, match="observations: expected uint8, got float32"):
        replay.add(**step())


BAD_UPDATES = {
    "nan": ([0], [math.nan], ValueError, "td_errors: expected finite"),
    "inf": ([0], [-math.inf], ValueError, "td_errors: expected finite"),
    "lengths": ([0], [1.0, 2.0], ValueError, r"td_errors: expected as many as indices \(1\), got 2"),
    "never added": ([4], [1.0], IndexError, "indices: no transition has had the index 4"),
    "another round": ([10**12], [1.0], IndexError, "indices: no transition"),
    "negative": ([-1], [1.0], IndexError, "indices: no transition has had the index -1"),
    "very negative": ([-(2**63)], [1.0], IndexError, "indices: no transition"),
    "floats": ([0.0], [1.0], TypeError, "indices: expected an int64 tensor"),
    "ints": ([0], [1], TypeError, "td_errors: expected a float tensor"),
    "shape": ([[0]], [[1.0]], ValueError, r"indices: expected shape \[N\]"),
}


@pytest.mark.parametrize("bad", BAD_UPDATES)
def test_bad_updates_are_refused(bad):
    indices, errors, error, message = BAD_UPDATES[bad]
    replay = make(PrioritizedReplay)
    episode(replay, [0, 0])
    before = replay.state_dict()["priorities"]
    with pytest.raises(error, match=message):
        replay.update_priorities(torch.tensor(indices), torch.tensor(errors))
    assert torch.equal(replay.state_dict()["priorities"], before)


def test_td_errors_of_any_float_dtype_and_with_gradient():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        replay = make(PrioritizedReplay, alpha=1.0, eps=1.0)
        episode(replay, [0])
        replay.update_priorities(replay.sample(1).indices, torch.tensor([-2.0], dtype=dtype, requires_grad=True))
        assert replay.state_dict()["priorities"].max() == 3
    replay.update_priorities(torch.zeros(0, dtype=torch.int64), torch.zeros(0))


@kinds
def test_bad_numbers(kind):
    with pytest.raises(ValueError, match="the replay is empty"):
        make(kind).sample(1)
    for name, value in (("capacity", 0), ("n_envs", 0), ("n_step", 0), ("gamma", 1.1), ("gamma", math.nan)):
        with pytest.raises(ValueError, match=f"{kind.__name__}: {name}"):
            make(kind, **{name: value})
    with pytest.raises(ValueError, match=r"capacity: expected at least n_envs \(3\), got 2"):
        make(kind, 2, 3)
    with pytest.raises(TypeError, match="generator: expected a numpy"):
        kind(4, (2,), generator=0)
    replay = make(kind)
    episode(replay, [0])
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        replay.sample(0)
    with pytest.raises(TypeError, match="batch_size: expected an int"):
        replay.sample(1.5)


@pytest.mark.parametrize(("name", "value"), [("alpha", -0.1), ("beta", 1.5), ("beta_steps", 0), ("eps", 0.0)])
def test_bad_numbers_of_prioritised(name, value):
    with pytest.raises(ValueError, match=f"PrioritizedReplay: {name}"):
        make(PrioritizedReplay, **{name: value})


def test_backends_give_the_same_batches():
    runs = []
    for backend in ("auto", "reference"):
        with automl_ext.backend(backend):
            runs.append(go_on(World(3), make_with(PrioritizedReplay, generators(0)[0]), 30))
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
