"""A replay of whole episodes, sampled as windows of consecutive steps."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Step
from automl_ext.training.machine.device import send
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state

FIELDS = ("observations", "actions", "rewards", "terminated")


class Sequences(NamedTuple):
    """Sampled windows of L rows, time-major. Action, reward and termination of a row led to its observation.

    Attributes:
        observations: [L, B, ...], in the environment's dtype.
        actions: float32 [L, B, A], the action before the observation; 0 at an episode's start.
        rewards: float32 [L, B], the reward of that action.
        terminated: bool [L, B], whether the episode terminated at the observation; False at truncations.
        valid: bool [L, B], False for padding after an episode that is shorter than the window.
        has_reward: bool [L, B], True for valid rows except an episode's start, whose reward of 0 is a placeholder.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    valid: Tensor
    has_reward: Tensor


class StoredEpisode:
    """The rows of one episode, in arrays that grow."""

    def __init__(self, arrays: dict[str, np.ndarray], length: int) -> None:
        self.arrays, self.length = arrays, length

    @classmethod
    def begin(cls, observation: np.ndarray, actions: int) -> StoredEpisode:
        """Make an episode of one row from its first observation."""
        rows = {
            "observations": observation,
            "actions": np.zeros(actions, np.float32),
            "rewards": np.float32(0),
            "terminated": np.False_,
        }
        return cls({name: np.array(row)[None] for name, row in rows.items()}, 1)

    def append(self, *row: Any) -> None:
        """Append a row with the values of :data:`FIELDS`."""
        if self.length == len(self.arrays["rewards"]):
            for name, array in self.arrays.items():
                grown = np.empty((2 * self.length, *array.shape[1:]), array.dtype)
                grown[: self.length] = array
                self.arrays[name] = grown
        for name, value in zip(FIELDS, row, strict=True):
            self.arrays[name][self.length] = value
        self.length += 1

    def fit(self) -> StoredEpisode:
        """Return a copy without unused rows."""
        return StoredEpisode({name: array[: self.length].copy() for name, array in self.arrays.items()}, self.length)


class SequenceReplay:
    """A replay of the last finished episodes and of the running ones.

    An episode of N steps has N + 1 rows. A window lies within one episode and is padded if the episode is shorter. The
    start of a window is sampled uniformly from all rows, and moved back if the window would reach beyond the episode's
    end. So the last rows of episodes, from which terminations are learned, are sampled often.

    Args:
        capacity: maximum number of rows in finished episodes; at least one episode is kept. A running episode with more
            than capacity / n_envs rows is stored in parts, so that endless episodes do not fill the memory.
        actions: A, the length of an action vector.
        n_envs: number of parallel environments.
        generator: random generator of the sampling.
    """

    def __init__(self, capacity: int, actions: int, n_envs: int, generator: np.random.Generator) -> None:
        self.capacity, self.actions, self.generator = capacity, actions, generator
        self.episodes: deque[StoredEpisode] = deque()  # the finished episodes
        self.going_on: list[StoredEpisode | None] = [None] * n_envs
        self.rows = 0  # number of rows in finished episodes
        self.longest = max(capacity // n_envs, 2)  # rows of a running episode

    def __len__(self) -> int:
        """Number of stored rows."""
        return self.rows + sum(episode.length for episode in self.going_on if episode is not None)

    def add(self, step: Step, actions: np.ndarray) -> None:
        """Add a step of every environment; ``actions`` [B, A] are its actions as vectors."""
        for i in np.flatnonzero(step.valid).tolist():
            episode = self.going_on[i]
            if episode is None:
                episode = self.going_on[i] = StoredEpisode.begin(step.observations[i], self.actions)
            episode.append(step.next_observations[i], actions[i], step.rewards[i], step.terminated[i])
            if step.terminated[i] or step.truncated[i] or episode.length > self.longest:
                self._end(i)

    def cut(self) -> None:
        """End all running episodes as truncated; call it after the environments are reset from outside."""
        for i, episode in enumerate(self.going_on):
            if episode is not None:
                self._end(i)

    def _end(self, i: int) -> None:
        """Move the running episode of environment ``i`` to the finished ones and remove the oldest ones."""
        episode = self.going_on[i]
        assert episode is not None
        self.episodes.append(episode.fit())
        self.rows += episode.length
        self.going_on[i] = None
        while self.rows > self.capacity and len(self.episodes) > 1:
            self.rows -= self.episodes.popleft().length

    def sample(self, batch_size: int, length: int, device: str | torch.device = "cpu") -> Sequences:
        """Sample ``batch_size`` windows of ``length`` rows.

        Raises:
            ValueError: the replay is empty.
        """
        episodes = [*self.episodes, *(episode for episode in self.going_on if episode is not None)]
        if not episodes:
            raise ValueError("sample: the replay is empty")
        ends = np.cumsum([episode.length for episode in episodes])
        rows = self.generator.integers(ends[-1], size=batch_size)
        which = np.searchsorted(ends, rows, side="right")
        sampled = {
            name: np.zeros((length, batch_size, *array.shape[1:]), array.dtype)
            for name, array in episodes[0].arrays.items()
        }
        valid, has_reward = (np.zeros((length, batch_size), bool) for _ in range(2))
        for b, (row, e) in enumerate(zip(rows.tolist(), which.tolist(), strict=True)):
            episode = episodes[e]
            start = min(row - (int(ends[e]) - episode.length), max(episode.length - length, 0))
            stop = min(start + length, episode.length)
            for name, array in episode.arrays.items():
                sampled[name][: stop - start, b] = array[start:stop]
            valid[: stop - start, b] = True
            has_reward[int(start == 0) : stop - start, b] = True
        tensors = [torch.from_numpy(x) for x in (*(sampled[name] for name in FIELDS), valid, has_reward)]
        return Sequences(*send(tensors, torch.device(device)))

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state, the generator included, as tensors and plain Python values."""
        episodes = [*self.episodes, *(episode for episode in self.going_on if episode is not None)]
        arrays = {
            name: torch.from_numpy(np.concatenate([e.arrays[name][: e.length] for e in episodes]))
            for name in (FIELDS if episodes else ())
        }
        return {
            "arrays": arrays,
            "lengths": [episode.length for episode in self.episodes],
            "going_on": [None if episode is None else episode.length for episode in self.going_on],
            "generator": numpy_generator_state(self.generator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict` into a replay with the same arguments.

        Raises:
            ValueError: the state has another number of environments or other actions.
        """
        arrays = {name: array.numpy() for name, array in state["arrays"].items()}
        if len(state["going_on"]) != len(self.going_on):
            raise ValueError(f"state: environments: expected {len(self.going_on)}, got {len(state['going_on'])}")
        if arrays and arrays["actions"].shape[1] != self.actions:
            raise ValueError(f"state: actions: expected {self.actions} numbers each, got {arrays['actions'].shape[1]}")
        at = 0

        def take(length: int) -> StoredEpisode:
            nonlocal at
            at += length
            return StoredEpisode({name: array[at - length : at].copy() for name, array in arrays.items()}, length)

        self.episodes = deque(take(length) for length in state["lengths"])
        self.going_on = [None if length is None else take(length) for length in state["going_on"]]
        self.rows = sum(state["lengths"])
        set_numpy_generator_state(self.generator, state["generator"])
