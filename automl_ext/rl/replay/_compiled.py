"""The compiled parts of the replay buffer, csrc/replay, under the names of their references in Python."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.rl.replay._sum_tree_reference import check_array, check_length

_c = _native.functions()
_ERRORS = {"V": ValueError, "I": IndexError, "M": MemoryError}
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
for _name, _result, *_arguments in (
    ("sum_tree_new", ctypes.c_char_p, _INT, _POINTER),
    ("sum_tree_delete", None, _POINTER),
    ("sum_tree_total", ctypes.c_double, _POINTER),
    ("sum_tree_limit", ctypes.c_double, _POINTER),
    ("sum_tree_set", ctypes.c_char_p, _POINTER, _POINTER, _POINTER, _INT),
    ("sum_tree_get", ctypes.c_char_p, _POINTER, _POINTER, _INT, _POINTER),
    ("sum_tree_sample", ctypes.c_char_p, _POINTER, _POINTER, _INT, _POINTER, _POINTER),
    ("sum_tree_state", None, _POINTER, _POINTER),
    ("sum_tree_load", ctypes.c_char_p, _POINTER, _POINTER),
    ("held_rows", None, _POINTER, _INT, _POINTER, _INT, _POINTER),
):
    _function = getattr(_c, f"automl_ext_{_name}")
    _function.restype, _function.argtypes = _result, _arguments


def _check(error: bytes | None) -> None:
    if error is not None:
        text = error.decode()
        raise _ERRORS[text[0]](text[1:])


def _array(name: str, array: Any, dtype: type) -> np.ndarray:
    check_array(name, array, dtype)
    return np.ascontiguousarray(array)


class CompiledSumTree:
    """See :class:`automl_ext.rl.replay._sum_tree_reference.SumTree`."""

    def __init__(self, capacity: int) -> None:
        tree = ctypes.c_void_p()
        _check(_c.automl_ext_sum_tree_new(capacity, ctypes.byref(tree)))
        self._tree, self.capacity = tree, capacity

    def __del__(self) -> None:
        if hasattr(self, "_tree"):
            _c.automl_ext_sum_tree_delete(self._tree)

    @property
    def total(self) -> float:
        total: float = _c.automl_ext_sum_tree_total(self._tree)
        return total

    @property
    def limit(self) -> float:
        limit: float = _c.automl_ext_sum_tree_limit(self._tree)
        return limit

    def set(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        i, p = _array("indices", indices, np.int64), _array("priorities", priorities, np.float64)
        check_length("priorities", p, len(i), "indices")
        _check(_c.automl_ext_sum_tree_set(self._tree, i.ctypes.data, p.ctypes.data, len(i)))

    def get(self, indices: np.ndarray) -> np.ndarray:
        i = _array("indices", indices, np.int64)
        priorities = np.empty(len(i))
        _check(_c.automl_ext_sum_tree_get(self._tree, i.ctypes.data, len(i), priorities.ctypes.data))
        return priorities

    def sample(self, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = _array("uniforms", uniforms, np.float64)
        n = len(u)
        indices, priorities = np.empty(n, np.int64), np.empty(n)
        outputs = indices.ctypes.data, priorities.ctypes.data
        _check(_c.automl_ext_sum_tree_sample(self._tree, u.ctypes.data, n, *outputs))
        return indices, priorities

    def state(self) -> np.ndarray:
        priorities = np.empty(self.capacity)
        _c.automl_ext_sum_tree_state(self._tree, priorities.ctypes.data)
        return priorities

    def load(self, priorities: np.ndarray) -> None:
        p = _array("priorities", priorities, np.float64)
        check_length("priorities", p, self.capacity, "the capacity")
        _check(_c.automl_ext_sum_tree_load(self._tree, p.ctypes.data))


def held_rows(indices: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """See :func:`automl_ext.rl.replay._windows_reference.held_rows`; ``steps`` is contiguous."""
    i = np.ascontiguousarray(indices)
    rows = np.empty(len(i), np.int64)
    _c.automl_ext_held_rows(i.ctypes.data, len(i), steps.ctypes.data, len(steps) // 24, rows.ctypes.data)
    return rows


def gather_windows(
    rows: np.ndarray,
    steps: np.ndarray,
    slots: int,
    n_step: int,
    gamma: float,
    observations: Tensor,
    actions: Tensor,
    apart: Tensor,
) -> tuple[Tensor, ...]:
    """See :func:`automl_ext.rl.replay._windows_reference.gather_windows`."""
    arrays = torch.from_numpy(rows), torch.from_numpy(steps)
    gather = torch.ops.automl_ext._gather_windows.default
    batch: tuple[Tensor, ...] = gather(*arrays, slots, n_step, gamma, observations, actions, apart)
    return batch


SumTree = CompiledSumTree  # the name in the reference
