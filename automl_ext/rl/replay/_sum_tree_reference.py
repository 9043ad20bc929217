"""The sum tree of csrc/replay in NumPy. Its results equal those of the compiled library bit for bit."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

CHILDREN = 8
MOST_LEAVES = 2**40


class SumTree:
    """A tree that samples indices in proportion to their priorities (Schaul et al. 2016, appendix B.2.1).

    A parent is the sum of its eight children. Every change recomputes the sums, so that rounding errors do not
    accumulate. An index of priority 0 is never sampled.

    Args:
        capacity: number of indices, from 1 to 2⁴⁰. All priorities start at 0.

    Attributes:
        total: sum of the priorities.
        limit: the largest allowed priority, so that the sum of ``capacity`` priorities does not overflow.

    Raises:
        ValueError: the capacity is out of range. In the methods: an array has a wrong dtype or shape, or a priority
            is negative, NaN or above ``limit``. The tree is then unchanged.
        IndexError: an index is out of range.
    """

    def __init__(self, capacity: int) -> None:
        if not 1 <= capacity <= MOST_LEAVES:
            raise ValueError(f"SumTree: capacity: expected 1 to 2**40, got {capacity}")
        self.capacity = capacity
        self.limit = sys.float_info.max / 2 / capacity
        self.total = 0.0
        self._levels: list[np.ndarray] = []  # the leaves first, [groups, 8]
        size = capacity
        while size > 1 or not self._levels:
            size = -(-size // CHILDREN)
            self._levels.append(np.zeros((size, CHILDREN)))

    def set(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Set the priorities, float64 [N], of indices, int64 [N]. The last priority of a repeated index is used."""
        self._check_indices(indices)
        check_array("priorities", priorities, np.float64)
        check_length("priorities", priorities, len(indices), "indices")
        self._check_priorities(priorities)
        self._leaves[indices] = priorities
        self._sum_up(np.unique(indices // CHILDREN))

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Return the priorities, float64 [N], of indices, int64 [N]."""
        self._check_indices(indices)
        return self._leaves[indices]

    def sample(self, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample with stratification: sample i lies in the i-th of N equal parts of the total priority.

        Args:
            uniforms: float64 [N] in [0, 1), the position of each sample in its part.

        Returns:
            Indices, int64 [N] in ascending order, and their priorities, float64 [N].

        Raises:
            ValueError: every priority is 0, or a uniform is not in [0, 1).
        """
        check_array("uniforms", uniforms, np.float64)
        if not self.total > 0:
            raise ValueError("SumTree: every priority is 0, there is nothing to sample")
        bad = np.flatnonzero(~((uniforms >= 0) & (uniforms < 1)))
        if bad.size:
            raise ValueError(
                f"SumTree: uniforms: expected numbers in [0, 1), got {uniforms[bad[0]]:g} at position {bad[0]}"
            )
        n = len(uniforms)
        mass = np.minimum((np.arange(n) + uniforms) / max(n, 1) * self.total, np.nextafter(self.total, 0.0))
        indices = np.zeros(n, dtype=np.int64)
        draws = np.arange(n)
        for level in reversed(self._levels):
            children = level[indices]
            sums = np.cumsum(children, axis=1)
            # The first child whose cumulative sum is above the mass. Its priority is above 0, since the sum increases.
            passed = mass[:, None] >= sums
            chosen = passed.sum(axis=1)
            before = np.where(chosen > 0, sums[draws, chosen - 1], 0.0)
            # Rounding of the sum may leave a mass above the child's priority.
            mass = np.minimum(mass - before, np.nextafter(children[draws, chosen], 0.0))
            indices = indices * CHILDREN + chosen
        return indices, self._leaves[indices]

    def state(self) -> np.ndarray:
        """Return a copy of the priorities, float64 [capacity]. The sums follow from them."""
        return self._leaves[: self.capacity].copy()

    def load(self, priorities: np.ndarray) -> None:
        """Restore :meth:`state`."""
        check_array("priorities", priorities, np.float64)
        check_length("priorities", priorities, self.capacity, "the capacity")
        self._check_priorities(priorities)
        self._leaves[: self.capacity] = priorities
        self._sum_up(np.arange(len(self._levels[0])))

    @property
    def _leaves(self) -> np.ndarray:
        return self._levels[0].reshape(-1)  # a view

    def _sum_up(self, nodes: np.ndarray) -> None:
        for level, above in zip(self._levels, self._levels[1:], strict=False):
            above.reshape(-1)[nodes] = np.cumsum(level[nodes], axis=1)[:, -1]  # from left to right, like sample()
            nodes = np.unique(nodes // CHILDREN)
        self.total = float(np.cumsum(self._levels[-1][0])[-1])

    def _check_indices(self, indices: np.ndarray) -> None:
        check_array("indices", indices, np.int64)
        bad = np.flatnonzero((indices < 0) | (indices >= self.capacity))
        if bad.size:
            i = bad[0]
            raise IndexError(f"SumTree: indices: expected 0 to {self.capacity - 1}, got {indices[i]} at position {i}")

    def _check_priorities(self, priorities: np.ndarray) -> None:
        bad = np.flatnonzero(~((priorities >= 0) & (priorities <= self.limit)))
        if bad.size:
            i = bad[0]
            raise ValueError(
                f"SumTree: priorities: expected numbers in [0, {self.limit:g}], got {priorities[i]:g} at position {i}"
            )


def check_array(name: str, array: Any, dtype: type) -> None:
    expected = f"SumTree: {name}: expected a 1-dimensional {np.dtype(dtype)} array, got "
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{expected}{type(array).__name__}")
    if array.ndim != 1 or array.dtype != dtype:
        raise ValueError(f"{expected}{array.dtype} of shape {array.shape}")


def check_length(name: str, array: np.ndarray, length: int, like: str) -> None:
    if len(array) != length:
        raise ValueError(f"SumTree: {name}: expected as many as {like} ({length}), got {len(array)}")
