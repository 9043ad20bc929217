"""Experience replay (Lin 1992) for parallel environments.

A ring per environment holds the transitions. Each observation is stored once, in its own dtype: images stay uint8. If
observations are stacks of the last frames, each frame is stored once, and the stacks are made when they are sampled.
Windows of ``n_step`` steps are formed during sampling by the rule of :func:`automl_ext.n_step_returns`. A window ends
at an episode's end, at the newest step, and before a step that is not valid (Gymnasium's NEXT_STEP autoreset makes one
after each episode). Such shorter windows are sampled like all others. A truncated episode bootstraps from its true
final observation, a terminated one does not bootstrap.

Memory per transition in bytes: the observation or its newest frame, the action, 24 for reward, flags and indices, and
10.3 for priorities. Each finished episode takes one more observation, or k more frames for stacks of k frames. Memory
is allocated while the ring fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_count, check_number, describe
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.replay import _windows_reference
from automl_ext.rl.replay._ring import Ring
from automl_ext.training.machine.device import send
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state


def backend_of(reference: Any) -> Any:
    """Return the compiled library, or the reference module if the library is missing or not selected."""
    if _native.is_loaded() and _native.current_backend() != "reference":
        from automl_ext.rl.replay import _compiled

        return _compiled
    return reference


@dataclass(slots=True)
class Batch:
    """A batch of N sampled n-step windows.

    The target of a value function is ``returns + discounts * value(next_observations)``.

    Attributes:
        observations: [N, *observation_shape], before the first action of each window.
        actions: [N, *action_shape], the first actions.
        returns: float32 [N], sum of gamma^k r_{t+k} over the window.
        next_observations: [N, *observation_shape], after the last step; the final observation of an ended episode.
        discounts: float32 [N], gamma^K for a window of K steps, 0 if it ends in a termination.
        terminated: bool [N], whether the window ends in a termination.
        weights: float32 [N], importance weights with maximum 1; all 1 from a uniform replay.
        indices: int64 [N] on the CPU, identify the transitions for ``update_priorities``. The index of an overwritten
            transition is not reused.
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
    """A replay of the last ``capacity`` transitions, sampled uniformly with replacement.

    Args:
        capacity: total number of transitions; each environment holds ``capacity // n_envs``.
        observation_shape, observation_dtype: one environment's observation. Float observations must not be NaN.
        action_shape, action_dtype: one environment's action.
        n_envs: number of parallel environments, B.
        n_step: steps per window, at least 1.
        gamma: discount factor per step, in [0, 1].
        frame_stack: number of frames that observations stack along their first axis, the newest one last, as
            :class:`gymnasium.wrappers.FrameStackObservation` does. Each frame is stored once. 1: store observations
            as they are.
        generator: random generator of the sampling. Equal seeds give equal batches.
        device: device of the batches.

    Raises:
        ValueError: a number out of range.
        TypeError: ``generator`` is not a ``numpy.random.Generator``.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: Any = np.float32,
        action_shape: tuple[int, ...] = (),
        action_dtype: Any = np.int64,
        *,
        generator: np.random.Generator,
        n_envs: int = 1,
        n_step: int = 1,
        gamma: float = 0.99,
        frame_stack: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        op = type(self).__name__
        self.n_step, self.gamma = check_count(n_step, "n_step", op), check_number(gamma, "gamma", op, 0, 1)
        for name, shape in (("observation_shape", observation_shape), ("action_shape", action_shape)):
            if not isinstance(shape, (tuple, list)) or not all(
                type(n) is not bool and isinstance(n, (int, np.integer)) and n >= 0 for n in shape
            ):
                raise TypeError(f"{op}: {name}: expected a tuple of ints, got {describe(shape)}")
        if not isinstance(generator, np.random.Generator):
            raise TypeError(f"{op}: generator: expected a numpy.random.Generator, got {type(generator).__name__}")
        if check_count(capacity, "capacity", op) < check_count(n_envs, "n_envs", op):
            raise ValueError(f"{op}: capacity: expected at least n_envs ({n_envs}), got {capacity}")
        if check_count(frame_stack, "frame_stack", op) > 1 and tuple(observation_shape)[:1] != (frame_stack,):
            shape = tuple(observation_shape)
            raise ValueError(f"{op}: frame_stack: expected observation_shape[0], got {frame_stack} with shape {shape}")
        self.generator, self.device = generator, torch.device(device)
        kinds = observation_shape, observation_dtype, action_shape, action_dtype
        self._ring = Ring(capacity // n_envs, n_envs, *kinds, frame_stack)

    def __len__(self) -> int:
        """Number of stored transitions."""
        return int(self._ring.sizes.sum())

    def add(self, step: Step) -> None:
        """Add one step of every environment. If the step is invalid, an error is raised and the replay is unchanged.

        Args:
            step: arrays or CPU tensors. Nothing is stored where ``valid`` is False. Rewards become float32. To store
                actions in another form than the environment's, pass ``step._replace(actions=...)``.

        Raises:
            ValueError: a wrong shape, a reward that is not finite, a NaN observation, or a number that does not fit
                the dtype; or an observation differs from the ``next_observations`` of the step before within an
                episode (see :meth:`cut`); or ``next_observations`` do not continue the stacks of ``observations``.
                The message names the environment.
            TypeError: a dtype that cannot be cast within its kind.
        """
        self._ring.add(step)

    def cut(self) -> None:
        """Let n-step windows end at the newest steps. Call it after environments are reset or replaced from outside."""
        self._ring.cut(np.ones(self._ring.n_envs, bool))

    def sample(self, batch_size: int) -> Batch:
        """Sample a batch.

        Raises:
            ValueError: the replay is empty, or ``batch_size`` is below 1.
        """
        uniforms = self._uniforms(batch_size)
        size = len(self)
        positions = np.minimum((uniforms * size).astype(np.int64), size - 1)
        return self._gather(self._ring.rows_at(positions), np.ones(batch_size, np.float32))

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state, the generator included, as tensors and plain Python values.

        The tensors may share memory with the replay: write or copy them before the next :meth:`add`.
        """
        return {"ring": self._ring.state(), "generator": numpy_generator_state(self.generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict` into a replay with the same arguments.

        Raises:
            ValueError: the state has other sizes or dtypes.
        """
        wanted, given = set(self.state_dict()), set(state)
        if wanted != given:
            raise ValueError(
                f"state: expected that of a {type(self).__name__} ({', '.join(sorted(wanted))}), "
                f"got {', '.join(sorted(map(str, given))) or 'nothing'}"
            )
        self._ring.load(state["ring"])
        set_numpy_generator_state(self.generator, state["generator"])

    def _uniforms(self, batch_size: int) -> np.ndarray:
        check_count(batch_size, "batch_size", "sample")
        if not self._ring.counts.any():
            raise ValueError("sample: the replay is empty")
        return self.generator.random(batch_size)

    def _gather(self, rows: np.ndarray, weights: np.ndarray) -> Batch:
        ring = self._ring
        windows = rows, ring.steps, ring.slots, self.n_step, self.gamma
        if ring.frame_stack == 1:
            batch = backend_of(_windows_reference).gather_windows(*windows, *ring.tensors())
        else:  # copying images takes nearly all the time, in Python, too
            returns, discounts, terminated, last, ids = _windows_reference.n_step_windows(*windows)
            arrays = ring.stacks(rows), ring.actions[rows], returns, ring.stacks(last, after=True), discounts
            batch = tuple(torch.from_numpy(x) for x in (*arrays, terminated, ids))
        *tensors, indices = batch
        return Batch(*[*send([*tensors, torch.from_numpy(weights)], self.device), indices])
