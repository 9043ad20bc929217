"""Invalid input of the replays."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from replay_world import episode, kinds, make, same

from automl_ext.rl import PrioritizedReplay, UniformReplay
from automl_ext.rl.envs.vector import Step

pytestmark = pytest.mark.usefixtures("each_backend")


def step(**changes):
    no = np.zeros(2, bool)
    ones = np.ones((2, 2), np.float32)
    return Step(ones, np.zeros(2, np.int64), np.zeros(2), ones, no, no, ~no)._replace(**changes)


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
def test_refused_steps_leave_the_replay_unchanged(kind, bad):
    changes, error, message = BAD_STEPS[bad]
    replay, clean = make(kind, 8, 2), make(kind, 8, 2)
    for one in (replay, clean):
        one.add(step())
    with pytest.raises(error, match=message):
        replay.add(step(**changes))
    for one in (replay, clean):
        one.add(step())
    assert same(replay.sample(50), clean.sample(50))


@kinds
@pytest.mark.parametrize(
    ("dtype", "given", "message"),
    [
        (np.uint8, np.full((2, 2), 300, np.uint16), "observations: expected numbers within uint8, got 300"),
        (np.int8, np.full((2, 2), -129), "observations: expected numbers within int8, got -129"),
        (np.float16, np.full((2, 2), 7e4), "observations: expected numbers within float16, got 70000"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(kind, dtype, given, message):
    replay = make(kind, 8, 2, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        replay.add(step(observations=given))
    no = np.zeros(2, bool)
    replay.add(step(observations=given, next_observations=given, valid=no))  # is not stored
    replay.add(step(observations=given // 1000, next_observations=given // 1000))
    assert (replay.sample(4).observations == torch.from_numpy((given // 1000).astype(dtype))[0]).all()


@kinds
@pytest.mark.parametrize(("name", "shape"), [("observation_shape", 3), ("action_shape", {"a": 1})])
def test_shapes_are_tuples_of_ints(kind, name, shape):
    with pytest.raises(TypeError, match=f"{name}: expected a tuple of ints, got"):
        kind(8, **({"observation_shape": (2,)} | {name: shape}), generator=np.random.default_rng())


def test_floats_are_not_cast_to_images():
    replay = make(UniformReplay, 8, 2, dtype=np.uint8)
    with pytest.raises(TypeError, match="observations: expected uint8, got float32"):
        replay.add(step())


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
def test_bad_numbers_of_prioritized(name, value):
    with pytest.raises(ValueError, match=f"PrioritizedReplay: {name}"):
        make(PrioritizedReplay, **{name: value})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_large_and_infinite_observations_are_stored_without_a_warning(dtype: type) -> None:
    replay = UniformReplay(5, (3,), dtype, generator=np.random.default_rng(0))
    large = np.array([[np.finfo(dtype).max, -np.inf, np.inf]], dtype)
    no = np.zeros(1, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay.add(Step(large, np.zeros(1, np.int64), np.ones(1, np.float32), large, no, no, ~no))
    assert len(replay) == 1
    assert torch.equal(replay.sample(1).observations, torch.from_numpy(large))
