"""Ring buffers of transitions, one per environment; each observation, or each frame of stacks, is stored once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Step
from automl_ext.rl.replay._windows_reference import CUT, STEP, TERMINATED, TRUNCATED

FIELDS = ("observations", "actions", "rewards", "flags", "indices", "finals")
STACK_FIELDS = ("ages", "starts")


class FramePool:
    """An array of values that are kept and dropped one by one; it grows.

    Attributes:
        array: [places, ...].
        free: the places without a value.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.array = np.zeros((0, *shape), dtype)
        self.free: list[int] = []

    def keep(self, values: np.ndarray) -> list[int]:
        """Store values [N, ...] and return their places."""
        n, size = len(values), len(self.array)
        if len(self.free) < n:
            more = max(n, size, 16)
            self.array = np.concatenate([self.array, np.zeros((more, *self.array.shape[1:]), self.array.dtype)])
            self.free.extend(range(size + more - 1, size - 1, -1))
        places = [self.free.pop() for _ in range(n)]
        self.array[places] = values
        return places


class Ring:
    """Ring buffers of transitions, one per environment, in common arrays: row = environment * slots + slot.

    A ring buffer for N transitions has N + 1 slots. Its head is the slot that the next transition will fill. The head
    already holds the next observation of the newest transition: unless the episode ended, it is also the observation
    of the next transition. The final observation of an episode is stored in a separate array, ``apart``. For the row
    of the episode's last transition, ``finals[row]`` is its position in ``apart``; for other rows it is -1.

    If observations are stacks of the last k frames, ``observations`` and ``apart`` hold only the newest frame of each,
    and :meth:`stacks` makes the stacks. ``ages[row]`` is the number of steps since the start of the transition's
    episode, at most k - 1. The first stack of an episode contains frames before the first observation: padding, or
    frames of an earlier life. They are stored in ``before``, at the place ``starts[row]`` of the rows that need them.
    The frames have k - 1 more slots than the transitions, for the stacks of the oldest transitions.

    The index of a transition is row + rows * (number of times the buffer has wrapped around). Unlike a row, an index is
    never reused.

    Args:
        capacity: transitions per environment.
        n_envs: number of environments, B.
        observation_shape, observation_dtype: one environment's observation.
        action_shape, action_dtype: one environment's action.
        frame_stack: number k of frames along the first axis of an observation; 1: observations are not stacks.
    """

    def __init__(
        self,
        capacity: int,
        n_envs: int,
        observation_shape: tuple[int, ...],
        observation_dtype: Any,
        action_shape: tuple[int, ...],
        action_dtype: Any,
        frame_stack: int = 1,
    ) -> None:
        self.n_envs, self.slots, self.frame_stack = n_envs, capacity + 1, frame_stack
        self.frame_slots = self.slots + frame_stack - 1
        self.rows = rows = n_envs * self.slots
        stored = observation_shape if frame_stack == 1 else observation_shape[1:]
        # The system allocates the memory of zeros when they are first written.
        self.observations = np.zeros((n_envs * self.frame_slots, *stored), observation_dtype)
        self.actions = np.zeros((rows, *action_shape), action_dtype)
        self._as_tensors = torch.from_numpy(self.observations), torch.from_numpy(self.actions)  # share memory
        steps = np.zeros(rows, STEP)
        self.steps = steps.view(np.uint8)
        self.rewards, self.flags, self.finals, self.indices, self.ages, self.starts = (
            steps[name]
            for name in ("reward", "flags", "final", "index", "age", "start")  # views
        )
        self.finals[:] = self.indices[:] = self.starts[:] = -1  # no transition, no final observation
        self.apart = FramePool(stored, observation_dtype)
        self.before = FramePool((frame_stack - 1, *stored), observation_dtype)
        self._observation = np.zeros((0, *observation_shape), observation_dtype)
        self.counts = np.zeros(n_envs, np.int64)  # number of transitions ever added
        self.open = np.zeros(n_envs, bool)  # whether the newest transition's episode is running
        self._all = np.arange(n_envs)
        self._first, self._first_frames = self._all * self.slots, self._all * self.frame_slots
        self._newest = self._first.copy()  # row of the newest transition, where an episode is running

    @property
    def sizes(self) -> np.ndarray:
        """Number of stored transitions, [n_envs]."""
        return np.minimum(self.counts, self.slots - 1)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return observations, actions and final observations, which share memory with the ring."""
        return *self._as_tensors, torch.from_numpy(self.apart.array)

    def stacks(self, rows: np.ndarray, after: bool = False) -> np.ndarray:
        """Return the stacked observations [N, k, ...] before the transitions in these rows, or after them."""
        newest = self.frame_stack - 1
        numbers = self.indices[rows] // self.rows * self.slots + rows % self.slots + after  # in their environments
        ages = np.minimum(self.ages[rows].astype(np.int64) + after, newest)[:, None]
        back = np.arange(newest, -1, -1)  # how many frames before the newest one
        frames = (numbers[:, None] - np.minimum(back, ages)) % self.frame_slots
        stacks: np.ndarray = self.observations[self._first_frames[rows // self.slots, None] + frames]
        i, j = (back > ages).nonzero()
        if i.size:
            stacks[i, j] = self.before.array[self.starts[rows[i]], j + ages[i, 0]]
        if after:
            finals = self.finals[rows]
            stacks[finals >= 0, -1] = self.apart.array[finals[finals >= 0]]
        return stacks

    def rows_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows of the transitions at positions in 0 … sum(sizes) − 1."""
        ends = np.cumsum(self.sizes)
        envs = np.searchsorted(ends, positions, side="right")
        oldest = (self.counts - ends)[envs]  # plus the position: number of the transition in its environment
        return self._first[envs] + (oldest + positions) % self.slots

    def add(self, step: Step) -> tuple[np.ndarray, np.ndarray]:
        """Store a step of every environment; see UniformReplay.add. Return the filled and the emptied rows."""
        valid = self._like("valid", step.valid, self.open)
        fields = [
            self._like("observations", step.observations, self._observation, valid),
            self._like("actions", step.actions, self.actions, valid),
            self._like("rewards", step.rewards, self.rewards, valid),
            self._like("next_observations", step.next_observations, self._observation, valid),
            self._like("terminated", step.terminated, self.open),
            self._like("truncated", step.truncated, self.open),
        ]
        envs, invalid = self._all, None
        if not valid.all():
            envs, invalid = np.flatnonzero(valid), ~valid
            fields = [x[envs] for x in fields]
        obs, acts, rews, next_obs, terms, truncs = fields
        counts = self.counts[envs]
        rows = self._first[envs] + counts % self.slots
        goes_on = self.open[envs]
        self._check_step(envs, goes_on, obs, rews, next_obs)

        if invalid is not None:
            self.cut(invalid)
        if self.frame_stack > 1:
            self._relate_to_start(envs, rows, goes_on, obs[:, :-1])
            obs, next_obs = obs[:, -1], next_obs[:, -1]
        if goes_on.all():
            self.flags[self._newest[envs]] = 0
        else:
            self.flags[self._newest[envs[goes_on]]] = 0
            self.observations[self._heads(envs)[~goes_on]] = obs[~goes_on]
        self.rewards[rows] = rews
        self.actions[rows] = acts
        self.flags[rows] = CUT
        self.indices[rows] = rows + counts // self.slots * self.rows
        self._newest[envs] = rows
        self.counts[envs] = counts = counts + 1
        head = self._first[envs] + counts % self.slots
        if (counts >= self.slots).any():  # else these rows have never been filled
            self._empty(head)
        self.observations[self._heads(envs)] = next_obs
        done = terms | truncs
        self.open[envs] = ~done
        if done.any():
            self.flags[rows] = CUT + TERMINATED * terms + TRUNCATED * truncs
            self._keep_apart(rows[done], next_obs[done])
        return rows, head

    def cut(self, envs: np.ndarray) -> None:
        """Let n-step windows of these environments, bool [n_envs], end at the newest transition."""
        envs = envs & self.open
        if envs.any():
            self._keep_apart(self._newest[envs], self.observations[self._heads(envs)])
            self.open[envs] = False

    def state(self) -> dict[str, Any]:
        """Return the state as tensors and plain Python values. Arrays of a full ring are not copied."""
        used = int(self.counts.max()) + 1
        arrays = {name: self._by_env(name)[:, :used] for name in self._fields}
        arrays |= {"apart": self.apart.array, "counts": self.counts.copy(), "open": self.open.copy()}
        stacks = self.frame_stack > 1
        arrays |= {"before": self.before.array} if stacks else {}
        state: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
        state |= {"free": list(self.apart.free), "slots": self.slots}
        return state | ({"free_before": list(self.before.free)} if stacks else {})

    def load(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`.

        Raises:
            ValueError: the state has other shapes or dtypes.
        """
        if state["slots"] != self.slots or len(state["counts"]) != self.n_envs:
            raise ValueError(
                f"state: expected a replay of {self.n_envs} environments with {self.slots - 1} transitions each, "
                f"got one of {len(state['counts'])} with {state['slots'] - 1}"
            )
        for name in ("observations", "actions"):
            own, x = self._by_env(name), state[name].numpy()
            if x.shape[2:] != own.shape[2:] or x.dtype != own.dtype:
                raise ValueError(
                    f"state: {name}: expected {own.dtype} of shape {own.shape[2:]}, got {x.dtype} of {x.shape[2:]}"
                )
        self.indices[:], self.finals[:], self.starts[:] = -1, -1, -1
        for name in self._fields:
            x = state[name].numpy()
            self._by_env(name)[:, : x.shape[1]] = x
        self.apart.array, self.apart.free = state["apart"].numpy().copy(), list(state["free"])
        if self.frame_stack > 1:
            self.before.array, self.before.free = state["before"].numpy().copy(), list(state["free_before"])
        self.counts[:], self.open[:] = state["counts"].numpy(), state["open"].numpy()
        self._newest = self._first + (self.counts - 1) % self.slots

    @property
    def _fields(self) -> tuple[str, ...]:
        return FIELDS + STACK_FIELDS * (self.frame_stack > 1)

    def _by_env(self, name: str) -> np.ndarray:
        x: np.ndarray = getattr(self, name)
        return x.reshape(self.n_envs, -1, *x.shape[1:])  # a view

    def _heads(self, envs: np.ndarray) -> np.ndarray:
        """Return where the observations of the next transitions of these environments are in ``observations``."""
        return self._first_frames[envs] + self.counts[envs] % self.frame_slots

    def _empty(self, rows: np.ndarray) -> None:
        """Remove the transitions in these rows, their final observations, and first stacks that no row needs now."""
        self.indices[rows] = -1
        finals = self.finals[rows]
        if finals.max(initial=-1) >= 0:
            self.apart.free.extend(finals[finals >= 0].tolist())
            self.finals[rows] = -1
        starts = self.starts[rows]
        if starts.max(initial=-1) >= 0:
            last = (self.ages[rows] == self.frame_stack - 2) | (self.flags[rows] != 0)  # the last row with this start
            self.before.free.extend(starts[last & (starts >= 0)].tolist())
            self.starts[rows] = -1

    def _keep_apart(self, rows: np.ndarray, observations: np.ndarray) -> None:
        """Store the final observations, or their newest frames, of the transitions in these rows."""
        self.finals[rows] = self.apart.keep(observations)

    def _relate_to_start(self, envs: np.ndarray, rows: np.ndarray, goes_on: np.ndarray, earlier: np.ndarray) -> None:
        """Set ages and starts of new rows; ``earlier`` [N, k - 1, ...]: the frames before the newest ones."""
        newest = self._newest[envs]
        ages = np.where(goes_on, np.minimum(self.ages[newest] + 1, self.frame_stack - 1), 0)
        starts = np.where(goes_on & (ages < self.frame_stack - 1), self.starts[newest], -1)
        starts[~goes_on] = self.before.keep(earlier[~goes_on])
        self.ages[rows], self.starts[rows] = ages, starts

    def _like(self, name: str, given: Any, stored: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """Convert to an array with the shape and dtype of one step of ``stored``. Only precision may be lost.

        Numbers where ``valid`` is False are not stored, so they need not fit.
        """
        x = np.asarray(given)
        shape = (self.n_envs, *stored.shape[1:])
        if x.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {x.shape}")
        if x.dtype == stored.dtype:
            return x
        if not np.can_cast(x.dtype, stored.dtype, "same_kind"):
            raise TypeError(f"{name}: expected {stored.dtype}, got {x.dtype}")
        if np.can_cast(x.dtype, stored.dtype, "safe"):
            return x.astype(stored.dtype)
        with np.errstate(over="ignore"):
            converted = x.astype(stored.dtype)
        lost = converted != x if stored.dtype.kind in "iu" else np.isinf(converted) & ~np.isinf(x)
        if valid is not None and lost[valid].any():
            raise ValueError(f"{name}: expected numbers within {stored.dtype}, got {x[valid][lost[valid]].flat[0]}")
        return converted

    def _check_step(
        self,
        envs: np.ndarray,
        goes_on: np.ndarray,
        observations: np.ndarray,
        rewards: np.ndarray,
        next_observations: np.ndarray,
    ) -> None:
        finite = np.isfinite(rewards)  # count_nonzero() takes a third of the time of all() and any()
        if np.count_nonzero(finite) != len(finite):
            env = np.flatnonzero(~finite)[0]
            raise ValueError(f"rewards: expected finite numbers, got {rewards[env]} in environment {envs[env]}")
        if observations.dtype.kind == "f":
            for name, x in (("observations", observations), ("next_observations", next_observations)):
                nan = np.isnan(x)
                if np.count_nonzero(nan):
                    env = np.flatnonzero(nan.reshape(len(x), -1).any(axis=1))[0]
                    raise ValueError(f"{name}: NaN in environment {envs[env]}")
        newest = observations
        if self.frame_stack > 1:
            newest = observations[:, -1]
            self._check_environments(
                observations[:, 1:] != next_observations[:, :-1],
                np.ones(len(envs), bool),
                envs,
                f"next_observations: in environment {{}} not observations without their first of {self.frame_stack} "
                "frames, and one new frame; expected stacks of frames along the first axis",
            )
        self._check_environments(
            newest != self.observations[self._heads(envs)],
            goes_on,
            envs,
            "observations: in environment {} not the next_observations of the step before, whose episode had not "
            "ended; call cut() after an environment is reset from outside",
        )

    @staticmethod
    def _check_environments(differ: np.ndarray, checked: np.ndarray, envs: np.ndarray, message: str) -> None:
        """Raise ValueError with the first environment that is ``checked``, bool [N], and has a True in ``differ``."""
        if np.count_nonzero(differ):
            wrong = differ.reshape(len(envs), -1).any(axis=1) & checked
            if wrong.any():
                raise ValueError(message.format(envs[wrong][0]))
