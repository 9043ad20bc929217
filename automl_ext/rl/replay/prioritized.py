"""Prioritized experience replay (Schaul et al. 2016) on a sum tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.ops._checks import check_count, check_number
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.replay import _sum_tree_reference, _windows_reference
from automl_ext.rl.replay.uniform import Batch, UniformReplay, backend_of


def sum_tree(capacity: int) -> Any:
    """Make a sum tree of the current backend: compiled, or :mod:`automl_ext.rl.replay._sum_tree_reference`."""
    return backend_of(_sum_tree_reference).SumTree(capacity)


class PrioritizedReplay(UniformReplay):
    """A replay that samples transitions in proportion to (\\|δ\\| + eps)^alpha (Schaul et al. 2016, algorithm 1).

    Sampling is stratified over the total priority. A new transition gets the largest priority so far, initially 1.
    Importance weights are (1 / (N P(i)))^beta, divided by the largest weight of the batch.

    Args:
        capacity, observation_shape, observation_dtype, action_shape, action_dtype, **kwargs: see
            :class:`UniformReplay`.
        alpha: in [0, 1]. 0 is uniform sampling, 1 is in proportion to \\|δ\\| + eps.
        beta: initial exponent of the importance weights, in [0, 1].
        beta_steps: number of calls of :meth:`sample` over which beta rises linearly to 1. None: beta is constant.
        eps: above 0, so that transitions with δ = 0 can be sampled.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: Any = np.float32,
        action_shape: tuple[int, ...] = (),
        action_dtype: Any = np.int64,
        *,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_steps: int | None = None,
        eps: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(capacity, observation_shape, observation_dtype, action_shape, action_dtype, **kwargs)
        op = type(self).__name__
        self.alpha, self.first_beta = check_number(alpha, "alpha", op, 0, 1), check_number(beta, "beta", op, 0, 1)
        self.beta_steps = None if beta_steps is None else check_count(beta_steps, "beta_steps", op)
        self.eps = check_number(eps, "eps", op, 1e-30, 1e30)
        self._tree = sum_tree(self._ring.rows)
        self._largest, self._samples = 1.0, 0

    @property
    def beta(self) -> float:
        """The exponent of the importance weights in the next :meth:`sample`."""
        done = min(self._samples / self.beta_steps, 1.0) if self.beta_steps else 0.0
        return self.first_beta + (1 - self.first_beta) * done

    def add(self, step: Step) -> None:
        """Add one step like :meth:`UniformReplay.add`. New transitions get the largest priority so far."""
        filled, emptied = self._ring.add(step)
        priorities = np.zeros(2 * len(filled))
        priorities[len(filled) :] = self._largest
        self._tree.set(np.concatenate([emptied, filled]), priorities)

    def sample(self, batch_size: int) -> Batch:
        """Sample a batch with importance weights.

        Raises:
            ValueError: the replay is empty, or ``batch_size`` is below 1.
        """
        rows, priorities = self._tree.sample(self._uniforms(batch_size))
        weights = ((priorities.min() / priorities) ** self.beta).astype(np.float32)  # N and the total cancel
        self._samples += 1
        return self._gather(rows, weights)

    def update_priorities(self, indices: Tensor, td_errors: Tensor) -> None:
        """Set the priorities of transitions to (\\|td_errors\\| + eps)^alpha.

        Transitions that were overwritten since they were sampled are skipped. If an index is repeated, its last error
        is used.

        Args:
            indices: int64 [N], from a batch.
            td_errors: float [N], of any sign, on any device.

        Raises:
            ValueError: a wrong shape, or an error that is not finite.
            IndexError: an index that no transition ever had.
            TypeError: a wrong dtype, or not a tensor.
        """
        ids = _check_vector(indices, "indices", integer=True)
        errors = np.abs(_check_vector(td_errors, "td_errors", integer=False).astype(np.float64))
        if len(ids) != len(errors):
            raise ValueError(f"td_errors: expected as many as indices ({len(ids)}), got {len(errors)}")
        if not len(ids):
            return
        largest = errors.max()
        if not largest < 1e200:  # false for NaN
            raise ValueError(f"td_errors: expected finite numbers, got {largest}")
        rows = backend_of(_windows_reference).held_rows(ids, self._ring.steps)
        if rows.min() < 0:
            self._check_known(ids)
            rows, errors = rows[rows >= 0], errors[rows >= 0]
        priorities = (errors + self.eps) ** self.alpha
        self._tree.set(rows, priorities)
        self._largest = max(self._largest, float(priorities.max(initial=0.0)))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of :meth:`UniformReplay.state_dict` and the priorities."""
        priorities = torch.from_numpy(self._tree.state())
        return super().state_dict() | {"priorities": priorities, "largest": self._largest, "samples": self._samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`. Raises the same errors as :meth:`UniformReplay.load_state_dict`."""
        super().load_state_dict(state)
        self._tree.load(state["priorities"].numpy())
        self._largest, self._samples = state["largest"], state["samples"]

    def _check_known(self, ids: np.ndarray) -> None:
        ring = self._ring
        rounds, rows = np.divmod(ids, ring.rows)
        known = (ids >= 0) & (rounds * ring.slots + rows % ring.slots < ring.counts[rows // ring.slots])
        if not known.all():
            raise IndexError(f"indices: no transition has had the index {ids[~known][0]}; pass the indices of a batch")


def _check_vector(given: Any, name: str, integer: bool) -> np.ndarray:
    x = given
    if isinstance(given, Tensor):
        x = given.numpy(force=True) if given.dtype != torch.bfloat16 else given.float().numpy(force=True)
    if not isinstance(x, np.ndarray) or not (x.dtype == np.int64 if integer else x.dtype.kind == "f"):
        got = x.dtype if isinstance(x, np.ndarray) else type(given).__name__
        raise TypeError(f"{name}: expected {'an int64' if integer else 'a float'} tensor, got {got}")
    if x.ndim != 1:
        raise ValueError(f"{name}: expected shape [N], got {list(x.shape)}")
    return x
