"""The compiled sum tree and the one in NumPy, by the same tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import automl_ext
from automl_ext import _native
from automl_ext.rl.replay import _sum_tree_reference
from automl_ext.rl.replay.prioritized import sum_tree

SIZES = [1, 2, 7, 8, 9, 63, 64, 65, 100, 513, 5000]
BELOW_ONE = math.nextafter(1.0, 0.0)
trees = pytest.mark.parametrize("backend", ["native", "reference"])
BUILT = ["native", "reference"] if _native.is_loaded() else ["reference"]


@pytest.fixture(autouse=True)
def _needs_library(request):
    native = "callspec" in dir(request.node) and request.node.callspec.params.get("backend") == "native"
    if native and not _native.is_loaded():
        pytest.skip("the native library is not built")


def make(backend, priorities):
    with automl_ext.backend(backend):
        tree = sum_tree(len(priorities))
    tree.load(np.asarray(priorities, dtype=np.float64))
    return tree


def ints(*values):
    return np.array(values, dtype=np.int64)


def floats(*values):
    return np.array(values, dtype=np.float64)


@trees
def test_backend_selects_the_tree(backend):
    assert isinstance(make(backend, [1.0]), _sum_tree_reference.SumTree) == (backend == "reference")


@trees
@pytest.mark.parametrize("capacity", SIZES)
def test_sampling_covers_every_index_of_any_capacity(backend, capacity):
    """Equal priorities and as many samples as indices: the middle of each part is one index, in order."""
    tree = make(backend, np.zeros(capacity))
    assert tree.capacity == capacity
    assert tree.total == 0
    tree.set(np.arange(capacity), np.ones(capacity))
    assert tree.total == capacity
    indices, priorities = tree.sample(np.full(capacity, 0.5))
    assert np.array_equal(indices, np.arange(capacity))
    assert np.array_equal(priorities, np.ones(capacity))
    assert np.array_equal(tree.get(np.arange(capacity)), np.ones(capacity))


@trees
@pytest.mark.parametrize("capacity", [5, 64, 1000])
def test_frequencies(backend, capacity):
    """Chi-square test on 200,000 samples in batches and 5,000 single samples. Limit: mean + 5 standard deviations."""
    rng = np.random.default_rng(0)
    priorities = rng.random(capacity) ** 2
    priorities[rng.random(capacity) < 0.2] = 0
    tree = make(backend, priorities)
    expected = priorities / priorities.sum() * 200_000
    uniforms = rng.random((400, 500))
    batches = np.bincount(np.concatenate([tree.sample(u)[0] for u in uniforms]), minlength=capacity)
    single = np.bincount([tree.sample(u)[0][0] for u in rng.random((5000, 1))], minlength=capacity)
    here = priorities > 0
    freedom = here.sum() - 1
    limit = freedom + 5 * math.sqrt(2 * freedom)
    for counts, wanted in ((batches, expected), (single, expected / 40)):
        assert counts[~here].sum() == 0
        assert (((counts - wanted) ** 2)[here] / wanted[here]).sum() < limit


@trees
def test_samples_are_stratified(backend):
    """Sample i lies in the i-th part of the cumulative sum for all uniforms."""
    rng = np.random.default_rng(3)
    priorities = rng.random(500)
    sums = np.concatenate([[0], np.cumsum(priorities)])
    tree = make(backend, priorities)
    parts = np.arange(41) / 40 * sums[-1]
    for _ in range(50):
        indices, _ = tree.sample(rng.random(40))
        assert (sums[indices] < parts[1:] + 1e-9).all()
        assert (sums[indices + 1] > parts[:-1] - 1e-9).all()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_priority_zero_is_never_sampled(data):
    """For all magnitudes and at the edges of the parts: rounding must not reach a neighbor."""
    values = st.sampled_from([0.0, 0.0, 5e-324, 1e-300, 1e-16, 0.1, 1 / 3, 1.0, 3.0, 1e16, 1e200])
    priorities = data.draw(st.lists(values, min_size=1, max_size=200).filter(any))
    n = data.draw(st.sampled_from([1, 2, 3, 64]))
    edges = st.sampled_from([0.0, 5e-324, 0.5, 1 - 2**-30, BELOW_ONE])
    uniforms = np.array(data.draw(st.lists(edges, min_size=n, max_size=n)))
    for backend in BUILT:
        indices, drawn = make(backend, priorities).sample(uniforms)
        assert (drawn > 0).all()
        assert np.array_equal(drawn, np.asarray(priorities)[indices])


@trees
def test_priority_zero_is_never_sampled_at_the_end(backend):
    """A mass equal to the total reached unused leaves in other implementations."""
    for n_used in (1, 3, 8, 9, 70):
        priorities = np.zeros(100)
        priorities[:n_used] = 0.1
        tree = make(backend, priorities)
        for n in (1, 2, 7, 256):
            assert tree.sample(np.full(n, BELOW_ONE))[0].max() == n_used - 1


@trees
def test_mass_rounded_up_to_the_childs_priority(backend):
    """Constructed: 1.5 + 1.5 ulp rounds up to 1.5 + 2 ulp; mass 1.5 + ulp less 1.5 ulp rounds up to 1.5 itself."""
    ulp = 2.0**-52
    priorities = np.zeros(100)
    priorities[[0, 8]] = 1.5 * ulp, 1.5
    tree = make(backend, priorities)
    assert tree.total == 1.5 + 2 * ulp
    assert tree.sample(floats(BELOW_ONE))[0].tolist() == [8]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_set_equals_a_list(data):
    """After any sequence of set() the tree equals one loaded with the result, bit for bit: no drift."""
    capacity = data.draw(st.integers(1, 150))
    trees, plain = {backend: make(backend, np.zeros(capacity)) for backend in BUILT}, [0.0] * capacity
    index, priority = st.integers(0, capacity - 1), st.floats(0, 1e100)
    for pairs in data.draw(st.lists(st.lists(st.tuples(index, priority), max_size=12), max_size=6)):
        for i, p in pairs:  # the last priority of a repeated index counts
            plain[i] = p
        for tree in trees.values():
            tree.set(ints(*(i for i, _ in pairs)), floats(*(p for _, p in pairs)))
    for backend, tree in trees.items():
        assert tree.state().tolist() == plain
        assert tree.total == make(backend, plain).total
        assert tree.total == pytest.approx(math.fsum(plain), rel=1e-14)


def test_both_trees_are_equal_bit_for_bit():
    if not _native.is_loaded():
        pytest.skip("the native library is not built")
    rng = np.random.default_rng(1)
    for capacity in SIZES:
        native, reference = (make(name, rng.random(capacity)) for name in ("native", "reference"))
        for _ in range(20):
            indices, priorities = rng.integers(capacity, size=50), rng.random(50) ** 5
            for tree in (native, reference):
                tree.load(reference.state())
                tree.set(indices, priorities)
            uniforms = rng.random(32)
            assert native.total == reference.total
            for a, b in zip(native.sample(uniforms), reference.sample(uniforms), strict=True):
                assert np.array_equal(a, b)
                assert a.dtype == b.dtype


@trees
def test_state_is_a_copy_and_restores(backend):
    tree = make(backend, [1.0, 0.0, 2.5])
    state = tree.state()
    tree.set(ints(0, 1), floats(7, 7))
    assert state.tolist() == [1, 0, 2.5]
    tree.load(state)
    state[:] = 9
    assert tree.state().tolist() == [1, 0, 2.5]
    assert tree.total == 3.5


@trees
def test_empty_arrays(backend):
    tree = make(backend, [1.0, 2.0])
    tree.set(ints(), floats())
    assert tree.get(ints()).shape == (0,)
    assert [x.shape for x in tree.sample(floats())] == [(0,), (0,)]
    assert tree.total == 3


@trees
def test_strided_arrays(backend):
    tree = make(backend, np.zeros(10))
    tree.set(np.arange(10)[::-2], np.arange(20.0)[::4])
    assert tree.state().tolist() == [0, 16, 0, 12, 0, 8, 0, 4, 0, 0]


BAD_CALLS = {
    "index below": ("set", (ints(0, -1), floats(1, 1)), IndexError, "indices: expected 0 to 9, got -1 at position 1"),
    "index above": ("set", (ints(10), floats(1)), IndexError, "got 10"),
    "huge index": ("get", (ints(2**62),), IndexError, "indices"),
    "negative": ("set", (ints(0), floats(-1e-9)), ValueError, "priorities: .*got -1e-09 at position 0"),
    "nan": ("set", (ints(0, 1), floats(1, math.nan)), ValueError, "priorities: .*got nan at position 1"),
    "inf": ("set", (ints(0), floats(math.inf)), ValueError, "priorities: .*got inf"),
    "sum overflows": ("set", (ints(0), floats(1e308)), ValueError, "priorities"),
    "lengths": ("set", (ints(0, 1), floats(1)), ValueError, r"priorities: expected as many as indices \(2\), got 1"),
    "dtype of indices": ("set", (np.array([0], np.int32), floats(1)), ValueError, "indices: .*int64.*got int32"),
    "dtype of priorities": ("set", (ints(0), np.ones(1, np.float32)), ValueError, "priorities: .*got float32"),
    "shape": ("get", (np.zeros((2, 2), np.int64),), ValueError, r"indices: expected a 1-dim.*\(2, 2\)"),
    "list": ("get", ([0],), ValueError, "indices: .*got list"),
    "None": ("sample", (None,), ValueError, "uniforms: .*got NoneType"),
    "uniform one": ("sample", (floats(0, 1),), ValueError, r"uniforms: expected numbers in \[0, 1\), got 1 at pos"),
    "uniform nan": ("sample", (floats(math.nan),), ValueError, "uniforms: .*got nan"),
    "uniform below": ("sample", (floats(-0.1),), ValueError, "uniforms"),
    "state too short": ("load", (floats(1, 2),), ValueError, r"priorities: expected as many as the capacity \(10\)"),
    "state with nan": ("load", (np.full(10, math.nan),), ValueError, "priorities"),
}


@trees
@pytest.mark.parametrize("bad", BAD_CALLS)
def test_bad_input_is_refused_and_changes_nothing(backend, bad):
    method, args, error, message = BAD_CALLS[bad]
    tree = make(backend, np.arange(10.0))
    with pytest.raises(error, match=message):
        getattr(tree, method)(*args)
    assert tree.state().tolist() == list(range(10))
    assert tree.total == 45


@trees
def test_all_priorities_zero(backend):
    with pytest.raises(ValueError, match="every priority is 0"):
        make(backend, np.zeros(5)).sample(floats(0.5))


@trees
@pytest.mark.parametrize("capacity", [0, -1, 2**62])
def test_bad_capacity(backend, capacity):
    with automl_ext.backend(backend), pytest.raises(ValueError, match="capacity: expected 1 to"):
        sum_tree(capacity)
