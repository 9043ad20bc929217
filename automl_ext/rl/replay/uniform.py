"""Experience replay (Lin 1992) for parallel environments, uniform and prioritised (Schaul et al. 2016).

Both hold transitions in a ring per environment. Each observation is stored once, in its own dtype: images stay uint8.
Windows of ``n_step`` steps are formed when they are sampled, by the rule of :func:`automl_ext.n_step_returns`: they end
at an episode's end, at the newest step, and before a step that is not valid (Gymnasium's NEXT_STEP autoreset makes one
after each episode); shorter windows near an end are samples like others. A truncated episode bootstraps from its true
final observation, a terminated one not at all.

Memory per transition, in bytes: the observation, the action, 24 for reward, flags and indices, and 10.3 more
where prioritised; and one observation more for each episode that ended. Memory is taken as the ring fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_count, check_number
from automl_ext.rl.replay import _windows_reference
from automl_ext.rl.replay._ring import Ring
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state

Generator = np.random.Generator | torch.Generator


def backend_of(reference: Any) -> Any:
    """The compiled library, or this module that answers in its place."""
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
        self.n_step, self.gamma = check_count(n_step, "n_step", op), check_number(gamma, "gamma", op, 0, 1)
        if not isinstance(generator, Generator):
            raise TypeError(
                f"{op}: generator: expected a numpy.random.Generator or torch.Generator, got {type(generator).__name__}"
            )
        if check_count(capacity, "capacity", op) < check_count(n_envs, "n_envs", op):
            raise ValueError(f"{op}: capacity: expected at least n_envs ({n_envs}), got {capacity}")
        self.generator, self.device = generator, torch.device(device)
        self._ring = Ring(capacity // n_envs, n_envs, observation_shape, observation_dtype, action_shape, action_dtype)

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
        rng = self.generator
        state = rng.get_state() if isinstance(rng, torch.Generator) else numpy_generator_state(rng)
        return {"ring": self._ring.state(), "generator": state}

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
        check_count(batch_size, "batch_size", "sample")
        if not self._ring.counts.any():
            raise ValueError("sample: the replay is empty")
        if isinstance(self.generator, np.random.Generator):
            return self.generator.random(batch_size)
        device = self.generator.device
        return torch.rand(batch_size, dtype=torch.float64, generator=self.generator, device=device).cpu().numpy()

    def _gather(self, rows: np.ndarray, weights: np.ndarray) -> Batch:
        ring = self._ring
        gather_windows = backend_of(_windows_reference).gather_windows
        observations, actions, returns, next_observations, discounts, terminated, indices = gather_windows(
            rows, ring.steps, ring.slots, self.n_step, self.gamma, *ring.tensors()
        )
        tensors = [observations, actions, returns, next_observations, discounts, terminated, torch.from_numpy(weights)]
        if self.device.type != "cpu":
            tensors = [x.to(self.device) for x in tensors]
        tensors.append(indices)
        return Batch(*tensors)
