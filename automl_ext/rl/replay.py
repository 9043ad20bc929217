"""Experience replay (Lin 1992) for parallel environments, uniform and prioritised (Schaul et al. 2016).

Both hold transitions in a ring per environment. Each observation is stored once, in its own dtype: images stay uint8.
Windows of ``n_step`` steps are formed when they are sampled, by the rule of :func:`automl_ext.n_step_returns`: they end
at an episode's end, at the newest step, and before a step that is not valid (Gymnasium's NEXT_STEP autoreset makes one
after each episode); shorter windows near an end are samples like others. A truncated episode bootstraps from its true
final observation, a terminated one not at all.

Memory per transition, in bytes: the observation, the action, 24 for reward, flags and indices, and 9.2 more where
prioritised; and one observation more for each episode that ended. Memory is taken as the ring fills.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_number
from automl_ext.rl import _sum_tree_reference, _windows_reference
from automl_ext.rl._ring import Ring
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state

Generator = np.random.Generator | torch.Generator


def sum_tree(capacity: int) -> Any:
    """A sum tree of the current backend: compiled, or the one of :mod:`automl_ext.rl._sum_tree_reference`."""
    return _backend(_sum_tree_reference).SumTree(capacity)


def _backend(reference: Any) -> Any:
    if _native.is_loaded() and _native.current_backend() != "reference":
        from automl_ext import _C  # type: ignore[attr-defined,unused-ignore]

        return _C
    return reference


@dataclass(slots=True)
class Batch:
    """Sampled windows, N of them; the target of a value function is
    ``returns + discounts * value(next_observations)``.

    Attributes:
        observations: [N, *observation_shape], before each window's first action.
        actions: [N, *action_shape], the first ones.
        returns: float32 [N], sum of gamma^k r_{t+k} over the window.
        next_observations: [N, *observation_shape], after the window's last step; an episode's true final one.
        discounts: float32 [N], gamma^K for a window of K steps, 0 where it ends in a termination.
        terminated: bool [N], whether it does.
        weights: float32 [N], of importance sampling, the largest 1; all 1 from a uniform replay.
        indices: int64 [N], on the CPU: which transitions these are, for ``update_priorities``. They are not used again
            when a transition has been overwritten.
    """

    observations: Tensor
    actions: Tensor
    returns: Tensor
    next_observations: Tensor
    discounts: Tensor
    terminated: Tensor
    weights: Tensor
    indices: Tensor


class UniformReplay:
    """The last ``capacity`` transitions, sampled uniformly with replacement.

    Args:
        capacity: transitions in all; each environment holds ``capacity // n_envs``.
        observation_shape, observation_dtype: of one environment's observation; float observations must not be NaN.
        action_shape, action_dtype: of one environment's action.
        n_envs: number of parallel environments, B.
        n_step: steps per window, at least 1.
        gamma: discount per step, in [0, 1].
        generator: where sampling draws from, of NumPy or torch. Equal seeds give equal batches.
        device: where batches go.

    Raises:
        ValueError: a number out of range.
        TypeError: ``generator`` is neither.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: Any = np.float32,
        action_shape: tuple[int, ...] = (),
        action_dtype: Any = np.int64,
        *,
        generator: Generator,
        n_envs: int = 1,
        n_step: int = 1,
        gamma: float = 0.99,
        device: str | torch.device = "cpu",
    ) -> None:
        op = type(self).__name__
        self.n_step, self.gamma = _check_count(n_step, "n_step", op), check_number(gamma, "gamma", op, 0, 1)
        if not isinstance(generator, Generator):
            raise TypeError(
                f"{op}: generator: expected a numpy.random.Generator or torch.Generator, got {type(generator).__name__}"
            )
        if _check_count(capacity, "capacity", op) < _check_count(n_envs, "n_envs", op):
            raise ValueError(f"{op}: capacity: expected at least n_envs ({n_envs}), got {capacity}")
        self.generator, self.device = generator, torch.device(device)
        self._ring = Ring(
            capacity // n_envs, n_envs, observation_shape, observation_dtype, action_shape, action_dtype
        )

    def __len__(self) -> int:
        """Transitions held."""
        return int(self._ring.sizes.sum())

    def add(
        self,
        observations: Any,
        actions: Any,
        rewards: Any,
        next_observations: Any,
        terminated: Any,
        truncated: Any,
        valid: Any = None,
    ) -> None:
        """Add one step of every environment; arrays or CPU tensors. What is wrong is refused whole.

        Args:
            observations, actions: [B, …].
            rewards: [B], stored as float32.
            next_observations: [B, …], the true next ones: an episode's final one, not the first of the next.
            terminated, truncated: bool [B].
            valid: bool [B]; False: not a transition, nothing is stored. None: all are.

        Raises:
            ValueError: another shape; a reward that is not finite, a NaN observation; an observation that is not the
                last step's next one within an episode (see :meth:`cut`). Names the environment.
            TypeError: a dtype that cannot be cast within its kind.
        """
        self._ring.add(observations, actions, rewards, next_observations, terminated, truncated, valid)

    def cut(self) -> None:
        """Say that the environments were reset or replaced from outside: no window goes on into what comes next."""
        self._ring.cut(np.ones(self._ring.n_envs, bool))

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch.

        Raises:
            ValueError: nothing to draw from, or ``batch_size`` below 1.
        """
        uniforms = self._uniforms(batch_size)
        size = len(self)
        positions = np.minimum((uniforms * size).astype(np.int64), size - 1)
        return self._gather(self._ring.rows_at(positions), np.ones(batch_size, np.float32))

    def state_dict(self) -> dict[str, Any]:
        """All that decides what comes next, the generator included: tensors and plain Python, for a checkpoint. The
        tensors may share memory with the replay, so write or copy them before you add to it.
        """
        numpy = isinstance(self.generator, np.random.Generator)
        generator = numpy_generator_state(self.generator) if numpy else self.generator.get_state()
        return {"ring": self._ring.state(), "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict` into a replay that was made alike.

        Raises:
            ValueError: the state is of other sizes, dtypes or kind of generator.
        """
        own, saved = isinstance(self.generator, torch.Generator), isinstance(state["generator"], Tensor)
        if own != saved:
            kinds = ("a torch.Generator", "a numpy.random.Generator")
            raise ValueError(f"state: generator: expected that of {kinds[not own]}, got that of {kinds[not saved]}")
        self._ring.load(state["ring"])
        if isinstance(self.generator, torch.Generator):
            self.generator.set_state(state["generator"])
        else:
            set_numpy_generator_state(self.generator, state["generator"])

    def _uniforms(self, batch_size: int) -> np.ndarray:
        _check_count(batch_size, "batch_size", "sample")
        if not self._ring.counts.any():
            raise ValueError("sample: the replay is empty")
        if isinstance(self.generator, np.random.Generator):
            return self.generator.random(batch_size)
        device = self.generator.device
        return torch.rand(batch_size, dtype=torch.float64, generator=self.generator, device=device).cpu().numpy()

    def _gather(self, rows: np.ndarray, weights: np.ndarray) -> Batch:
        ring = self._ring
        n_step_windows = _backend(_windows_reference).n_step_windows
        returns, discounts, terminated, next_rows, finals, indices = n_step_windows(
            rows, ring.steps, ring.slots, self.n_step, self.gamma
        )
        next_observations = ring.observations.take(next_rows, axis=0)
        apart = np.flatnonzero(finals >= 0)
        if apart.size:
            next_observations[apart] = ring.apart[finals[apart]]
        batch = (
            ring.observations.take(rows, axis=0),
            ring.actions.take(rows, axis=0),
            returns,
            next_observations,
            discounts,
            terminated,
            weights,
        )
        tensors = map(torch.from_numpy, batch)
        if self.device.type != "cpu":
            tensors = (x.to(self.device) for x in tensors)
        return Batch(*tensors, indices=torch.from_numpy(indices))


class PrioritizedReplay(UniformReplay):
    """Transitions sampled in proportion to (\\|δ\\| + eps)^alpha (Schaul et al. 2016, algorithm 1).

    Sampling is stratified over the total priority. A new transition gets the largest priority so far, 1 at first.
    Importance weights are (1 / (N P(i)))^beta, divided by the largest of the minibatch.

    Args:
        capacity, observation_shape, observation_dtype, action_shape, action_dtype, **kwargs: of :class:`UniformReplay`.
        alpha: 0 is uniform, 1 in proportion to \\|δ\\| + eps.
        beta: exponent of the importance weights, in [0, 1], at first.
        beta_steps: calls of :meth:`sample` over which beta rises linearly to 1; None: it stays.
        eps: above 0; keeps transitions with δ = 0 in play.

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
        self.beta_steps = None if beta_steps is None else _check_count(beta_steps, "beta_steps", op)
        self.eps = check_number(eps, "eps", op, 1e-30, 1e30)
        self._tree = sum_tree(self._ring.rows)
        self._largest, self._samples = 1.0, 0

    @property
    def beta(self) -> float:
        """The exponent that the next :meth:`sample` uses."""
        done = min(self._samples / self.beta_steps, 1.0) if self.beta_steps else 0.0
        return self.first_beta + (1 - self.first_beta) * done

    def add(
        self,
        observations: Any,
        actions: Any,
        rewards: Any,
        next_observations: Any,
        terminated: Any,
        truncated: Any,
        valid: Any = None,
    ) -> None:
        """As :meth:`UniformReplay.add`; the new transitions get the largest priority so far."""
        filled, emptied = self._ring.add(
            observations, actions, rewards, next_observations, terminated, truncated, valid
        )
        priorities = np.zeros(2 * len(filled))
        priorities[len(filled) :] = self._largest
        self._tree.set(np.concatenate([emptied, filled]), priorities)

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch with its importance weights.

        Raises:
            ValueError: nothing to draw from, or ``batch_size`` below 1.
        """
        rows, priorities = self._tree.sample(self._uniforms(batch_size))
        weights = ((priorities.min() / priorities) ** self.beta).astype(np.float32)  # N and the total cancel
        self._samples += 1
        return self._gather(rows, weights)

    def update_priorities(self, indices: Tensor, td_errors: Tensor) -> None:
        """Give transitions the priority (\\|td_errors\\| + eps)^alpha.

        Those overwritten since they were sampled are passed over; of an index that repeats the last error counts.

        Args:
            indices: int64 [N], from a batch.
            td_errors: float [N], any sign, any device.

        Raises:
            ValueError: another shape, or an error that is not finite.
            IndexError: an index that no transition has had.
            TypeError: no tensors of these dtypes.
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
        rows = ids % self._ring.rows
        held = self._ring.indices[rows] == ids
        if not held.all() or ids.min() < 0:  # an empty row has -1
            self._check_known(ids)
            rows, errors = rows[held], errors[held]
        priorities = (errors + self.eps) ** self.alpha
        self._tree.set(rows, priorities)
        self._largest = max(self._largest, float(priorities.max(initial=0.0)))

    def state_dict(self) -> dict[str, Any]:
        priorities = torch.from_numpy(self._tree.state())
        return super().state_dict() | {
            "priorities": priorities, "largest": self._largest, "samples": self._samples
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._tree.load(state["priorities"].numpy())
        self._largest, self._samples = state["largest"], state["samples"]

    def _check_known(self, ids: np.ndarray) -> None:
        ring = self._ring
        rounds, rows = np.divmod(ids, ring.rows)
        known = (ids >= 0) & (rounds * ring.slots + rows % ring.slots < ring.counts[rows // ring.slots])
        if not known.all():
            raise IndexError(f"indices: no transition has had the index {ids[~known][0]}; pass those of a batch")


def _check_count(value: Any, name: str, op: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name}: expected an int, got {type(value).__name__}") from None
    if number < 1:
        raise ValueError(f"{op}: {name}: expected at least 1, got {number}")
    return number


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
