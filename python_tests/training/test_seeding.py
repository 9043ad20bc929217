"""Seeds, and saved and restored random states."""

import contextlib
import random

import numpy as np
import pytest
import torch
from training_helpers import make

from automl_ext.training.seeding import (
    derived_seed,
    generator,
    numpy_generator_state,
    rng_state,
    seed_everything,
    set_numpy_generator_state,
    set_rng_state,
)


def draw():
    """Draw from every global generator. The number of normals is odd, so that each generator caches one."""
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
    """Save and load a state with ``weights_only``."""
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


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "1"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed: expected an int"):
        seed_everything(seed)


def test_global_states_survive_a_checkpoint(tmp_path):
    seed_everything(5)
    draw()
    state = through_a_checkpoint(tmp_path, rng_state())
    expected = [draw(), draw()]
    seed_everything(0)
    set_rng_state(state)
    assert [draw(), draw()] == expected


@pytest.mark.parametrize("gpus", [0, 1, 2, 3])
def test_states_of_another_number_of_gpus(monkeypatch, gpus):
    """Those of the GPUs that exist are restored, with a warning."""
    restored = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: int(state[0])}))
    seed_everything(5)
    state = rng_state() | {"cuda": [torch.full((16,), 7 + i, dtype=torch.uint8) for i in range(2)]}
    expected = draw()
    expectation = pytest.warns(UserWarning, match=f"saved with 2 GPUs, here there are {gpus}: .* bit for bit")
    with contextlib.nullcontext() if gpus == 2 else expectation:
        set_rng_state(state)
    assert restored == dict(list({0: 7, 1: 8}.items())[:gpus])
    assert draw() == expected


def test_a_generator_takes_the_state_of_another_kind_of_device():
    """States of generators on GPUs have 16 bytes."""
    states = [torch.arange(16, dtype=torch.uint8), torch.arange(1, 17, dtype=torch.uint8)]
    drawn = []
    for state in [*states, states[0]]:
        rng = generator(3)
        rng.set_state(state)
        drawn.append(torch.rand(3, generator=rng).tolist())
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1]
    with pytest.raises(RuntimeError):  # a damaged state is no seed
        generator(3).set_state(torch.zeros(100, dtype=torch.uint8))


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


def test_zeros_at_the_end_of_a_derived_seed_have_no_effect():
    """The docstring says so; another function would change all results."""
    assert derived_seed(5) == derived_seed(5, 0) == derived_seed(5, 0, 0)
    assert len({derived_seed(5), derived_seed(5, 1), derived_seed(0, 5), derived_seed(5, 0, 1)}) == 4
