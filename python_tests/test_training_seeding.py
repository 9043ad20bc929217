"""Seeds, random states and batches that go on where they stopped."""

import random
from itertools import chain

import numpy as np
import pytest
import torch
from training_helpers import make

from automl_ext.training.errors import UserError
from automl_ext.training.sampling import Batches
from automl_ext.training.seeding import (
    generator,
    numpy_generator_state,
    rng_state,
    seed_everything,
    set_numpy_generator_state,
    set_rng_state,
)


def draw():
    """From every global generator; an odd number of normals, so that each has one left over."""
    return (
        torch.randn(3).tolist(),
        random.gauss(0, 1),
        np.random.standard_normal(3).tolist(),
        np.random.randint(9),
    )


@pytest.fixture(autouse=True)
def _restore():
    before = rng_state()
    yield
    set_rng_state(before)


def through_a_checkpoint(folder, state):
    """What ``weights_only`` loading makes of a state."""
    with make(folder) as run:
        run.save(1, state)
    with make(folder, resume="auto") as run:
        return run.state


def test_equal_seeds_equal_draws():
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    other = draw()
    assert all(a != b for a, b in zip(first[:3], other[:3], strict=True))


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**32, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_bad_seeds(seed, error):
    with pytest.raises(error, match="seed: expected"):
        seed_everything(seed)


def test_global_states_survive_a_checkpoint(tmp_path):
    seed_everything(5)
    draw()
    state = through_a_checkpoint(tmp_path, rng_state())
    expected = [draw(), draw()]
    seed_everything(0)
    set_rng_state(state)
    assert [draw(), draw()] == expected


def test_states_of_missing_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = draw, rng_state()
    state = rng_state() | {"cuda": [torch.zeros(16, dtype=torch.uint8)]}
    with pytest.raises(UserError, match="taken with 1 GPUs, here there are 0"):
        set_rng_state(state)
    assert torch.equal(torch.get_rng_state(), before[1]["torch"])


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_numpy_generators_survive_a_checkpoint(tmp_path, kind):
    rng = np.random.Generator(getattr(np.random, kind)(3))
    rng.random(7)
    rng.integers(5, dtype=np.int32)  # leaves half a word over
    state = through_a_checkpoint(tmp_path, numpy_generator_state(rng))
    expected = rng.integers(1000, size=1000, dtype=np.int32).tolist()
    other = np.random.Generator(getattr(np.random, kind)(4))
    set_numpy_generator_state(other, state)
    assert other.integers(1000, size=1000, dtype=np.int32).tolist() == expected
    wrong = np.random.Generator(np.random.PCG64() if kind != "PCG64" else np.random.SFC64())
    with pytest.raises(ValueError, match=f"got one of {kind}"):
        set_numpy_generator_state(wrong, state)


def test_generator_is_its_own():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = torch.randn(3, generator=generator(7))
    assert torch.equal(first, torch.randn(3, generator=generator(7)))
    assert torch.equal(before, torch.get_rng_state())


def test_an_epoch_is_a_permutation():
    batches = Batches(10, 4, generator(0))
    epochs = [[index.tolist() for index in batches] for _ in range(2)]
    assert [[len(b) for b in epoch] for epoch in epochs] == [[4, 4, 2]] * 2
    assert all(sorted(chain(*epoch)) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert len(batches) == 3
    assert [len(index) for index in Batches(10, 4, generator(0), drop_last=True)] == [4, 4]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("stop", range(9))
def test_batches_go_on_anywhere(tmp_path, stop, drop_last):
    def stream(batches, count):
        found = []
        while len(found) < count:
            for index in batches:
                found.append(index.tolist())
                if len(found) == count:
                    break
        return found

    expected = stream(Batches(10, 4, generator(0), drop_last=drop_last), 12)
    first = Batches(10, 4, generator(0), drop_last=drop_last)
    assert stream(first, stop) == expected[:stop]
    state = through_a_checkpoint(tmp_path, first.state_dict())
    second = Batches(10, 4, generator(99), drop_last=drop_last)
    second.load_state_dict(state)
    assert stream(second, 12 - stop) == expected[stop:]
    assert stream(first, 12 - stop) == expected[stop:]


def test_batches_in_parallel_stay_whole():
    a, b = Batches(8, 4, generator(0)), Batches(8, 4, generator(1))
    for _ in range(3):
        pairs = [(x.tolist(), y.tolist()) for x, y in zip(a, b, strict=False)]
        assert [sorted(chain(*side)) for side in zip(*pairs, strict=True)] == [list(range(8))] * 2


@pytest.mark.parametrize(
    ("n", "size", "drop_last", "message"),
    [
        (0, 4, False, "n: 0 items"),
        (3, 4, True, "n: 3 items"),
        (3, 0, False, "batch_size: expected at least 1"),
    ],
)
def test_no_batches(n, size, drop_last, message):
    with pytest.raises(ValueError, match=message):
        Batches(n, size, generator(0), drop_last=drop_last)
