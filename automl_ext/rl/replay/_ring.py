"""Ring buffers of transitions, one per environment; each observation is stored once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Step
from automl_ext.rl.replay._windows_reference import CUT, STEP, TERMINATED, TRUNCATED

FIELDS = ("observations", "actions", "rewards", "flags", "indices", "finals")


class Ring:
    """Ring buffers of transitions, one per environment, in common arrays: row = environment * slots + slot.

    A ring buffer for N transitions has N + 1 slots. Its head is the slot that the next transition will fill. The head
    already holds the next observation of the newest transition: unless the episode ended, it is also the observation
    of the next transition. The final observation of an episode is stored in a separate array, ``apart``. For the row
    of the episode's last transition, ``finals[row]`` is its position in ``apart``; for other rows it is -1.

    The index of a transition is row + rows * (number of times the buffer has wrapped around). Unlike a row, an index is
    never reused.

    Args:
        capacity: transitions per environment.
        n_envs: number of environments, B.
        observation_shape, observation_dtype: one environment's observation.
        action_shape, action_dtype: one environment's action.
    """

    def __init__(
        self,
        capacity: int,
        n_envs: int,
        observation_shape: tuple[int, ...],
        observation_dtype: Any,
        action_shape: tuple[int, ...],
        action_dtype: Any,
    ) -> None:
        self.n_envs, self.slots = n_envs, capacity + 1
        self.rows = rows = n_envs * self.slots
        # The system allocates the memory of zeros when they are first written.
        self.observations = np.zeros((rows, *observation_shape), observation_dtype)
        self.actions = np.zeros((rows, *action_shape), action_dtype)
        self._as_tensors = torch.from_numpy(self.observations), torch.from_numpy(self.actions)  # share memory
        steps = np.zeros(rows, STEP)
        self.steps = steps.view(np.uint8)
        self.rewards, self.flags, self.finals, self.indices = (
            steps[name]
            for name in ("reward", "flags", "final", "index")  # views
        )
        self.finals[:] = self.indices[:] = -1  # no transition, no final observation
        self.apart = np.zeros((0, *observation_shape), observation_dtype)
        self.free: list[int] = []  # free rows of apart
        self.counts = np.zeros(n_envs, np.int64)  # number of transitions ever added
        self.open = np.zeros(n_envs, bool)  # whether the newest transition's episode is running
        self._all = np.arange(n_envs)
        self._first = self._all * self.slots
        self._newest = self._first.copy()  # row of the newest transition, where an episode is running

    @property
    def sizes(self) -> np.ndarray:
        """Number of stored transitions, [n_envs]."""
        return np.minimum(self.counts, self.slots - 1)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return observations, actions and final observations, which share memory with the ring."""
        return *self._as_tensors, torch.from_numpy(self.apart)

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
            self._like("observations", step.observations, self.observations, valid),
            self._like("actions", step.actions, self.actions, valid),
            self._like("rewards", step.rewards, self.rewards, valid),
            self._like("next_observations", step.next_observations, self.observations, valid),
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
        self._check_step(envs, rows, goes_on, obs, rews, next_obs)

        if invalid is not None:
            self.cut(invalid)
        if goes_on.all():
            self.flags[self._newest[envs]] = 0
        else:
            self.flags[self._newest[envs[goes_on]]] = 0
            self.observations[rows[~goes_on]] = obs[~goes_on]
        self.rewards[rows] = rews
        self.actions[rows] = acts
        self.flags[rows] = CUT
        self.indices[rows] = rows + counts // self.slots * self.rows
        self._newest[envs] = rows
        self.counts[envs] = counts = counts + 1
        head = self._first[envs] + counts % self.slots
        if (counts >= self.slots).any():  # else these rows have never been filled
            self._empty(head)
        self.observations[head] = next_obs
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
            head = self._first[envs] + self.counts[envs] % self.slots
            self._keep_apart(self._newest[envs], self.observations[head])
            self.open[envs] = False

    def state(self) -> dict[str, Any]:
        """Return the state as tensors and plain Python values. Arrays of a full ring are not copied."""
        used = min(int(self.counts.max()) + 1, self.slots)
        fields = {name: self._by_env(name)[:, :used] for name in FIELDS}
        arrays = fields | {"apart": self.apart, "counts": self.counts.copy(), "open": self.open.copy()}
        state: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
        return state | {"free": list(self.free), "slots": self.slots}

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
        self.indices[:], self.finals[:] = -1, -1
        for name in FIELDS:
            x = state[name].numpy()
            self._by_env(name)[:, : x.shape[1]] = x
        self.apart, self.free = state["apart"].numpy().copy(), list(state["free"])
        self.counts[:], self.open[:] = state["counts"].numpy(), state["open"].numpy()
        self._newest = self._first + (self.counts - 1) % self.slots

    def _by_env(self, name: str) -> np.ndarray:
        x: np.ndarray = getattr(self, name)
        return x.reshape(self.n_envs, self.slots, *x.shape[1:])  # a view

    def _empty(self, rows: np.ndarray) -> None:
        """Remove the transitions in these rows and their final observations."""
        self.indices[rows] = -1
        finals = self.finals[rows]
        if finals.max(initial=-1) >= 0:
            self.free.extend(finals[finals >= 0].tolist())
            self.finals[rows] = -1

    def _keep_apart(self, rows: np.ndarray, observations: np.ndarray) -> None:
        """Store the final observations of the transitions in these rows."""
        n = len(rows)
        if len(self.free) < n:
            size = len(self.apart)
            more = max(n, size, 16)
            self.apart = np.concatenate([self.apart, np.zeros((more, *self.apart.shape[1:]), self.apart.dtype)])
            self.free.extend(range(size + more - 1, size - 1, -1))
        places = [self.free.pop() for _ in range(n)]
        self.apart[places] = observations
        self.finals[rows] = places

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
        rows: np.ndarray,
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
        differ = observations != self.observations[rows]
        if np.count_nonzero(differ):
            wrong = differ.reshape(len(rows), -1).any(axis=1) & goes_on
            if wrong.any():
                raise ValueError(
                    f"observations: in environment {envs[wrong][0]} not the next_observations of the step before, "
                    "whose episode had not ended; call cut() after an environment is reset from outside"
                )
