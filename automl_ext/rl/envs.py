"""Parallel environments: the one place that knows how Gymnasium's vector environments end and restart episodes.

Gymnasium has two ways to restart an episode (``AutoresetMode``). NEXT_STEP: the step after an episode's end ignores
the action and returns the new episode's first observation with reward 0: it is no transition, and comes out as not
``valid``. SAME_STEP: the step that ends an episode already returns the new episode's first observation, the true next
one is in ``info["final_obs"]``. Whoever uses :class:`Envs` sees neither: ``next_observations`` is always the true next
observation, and what is not a transition says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from automl_ext.training.errors import UserError


class Step(NamedTuple):
    """One step of every environment.

    Attributes:
        observations: [B, ...], before the action.
        actions: [B, ...].
        rewards: float32 [B].
        next_observations: [B, ...], the true next ones: an episode's final observation where it ended.
        terminated, truncated: bool [B]. A truncated episode goes on in principle: bootstrap from its final observation.
        valid: bool [B], False where the step only restarted an episode: no transition, never to be learned from.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray


class Episode(NamedTuple):
    """A finished episode: its undiscounted return, as the environment pays it, and its length in steps."""

    episode_return: float
    length: int


class Envs:
    """``n_envs`` environments stepped together.

    Args:
        vector: a Gymnasium vector environment, in autoreset mode NEXT_STEP or SAME_STEP.
        seed: of the first reset; episodes after it go on from the environments' own generators.

    Attributes:
        observations: [B, ...], those to act on now.
        episodes: episodes finished so far; whoever reads them empties the list.
        steps: transitions so far, over all environments; steps that are not valid do not count.

    Raises:
        UserError: a vector environment in another autoreset mode.
    """

    def __init__(self, vector: VectorEnv[Any, Any, Any], seed: int) -> None:
        self.vector, self.n_envs = vector, vector.num_envs
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        mode = vector.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise UserError(f"autoreset mode: expected NEXT_STEP or SAME_STEP, got {mode}")
        self._next_step = mode == AutoresetMode.NEXT_STEP
        self.observations, _ = vector.reset(seed=seed)
        self.episodes: list[Episode] = []
        self.steps = 0
        self._restarting = np.zeros(self.n_envs, bool)  # the next step is a restart
        self._returns = np.zeros(self.n_envs)
        self._lengths = np.zeros(self.n_envs, np.int64)
        self._calls = 0

    def step(self, actions: np.ndarray) -> Step:
        """Act in every environment; afterwards :attr:`observations` are those to act on.

        Raises:
            UserError: a reward or an observation that is NaN or infinite: names the step and the environment.
        """
        before = self.observations
        after, rewards, terminated, truncated, info = self.vector.step(actions)
        self._calls += 1
        rewards = np.asarray(rewards, np.float32)
        true_next = after
        done = terminated | truncated
        valid = ~self._restarting
        if self._next_step:
            self._restarting = done
        elif done.any():
            true_next = after.copy()
            for i in np.flatnonzero(done):
                true_next[i] = info["final_obs"][i]
        self._check_finite("reward", rewards)
        self._check_finite("observation", true_next)
        self._count(rewards, done, valid)
        self.observations = after
        return Step(before, actions, rewards, true_next, terminated, truncated, valid)

    def close(self) -> None:
        self.vector.close()

    def _count(self, rewards: np.ndarray, done: np.ndarray, valid: np.ndarray) -> None:
        self._returns += rewards  # a restart pays 0
        self._lengths += valid
        self.steps += int(valid.sum())
        if done.any():
            for i in np.flatnonzero(done):
                self.episodes.append(Episode(float(self._returns[i]), int(self._lengths[i])))
            self._returns[done], self._lengths[done] = 0.0, 0

    def _check_finite(self, name: str, x: np.ndarray) -> None:
        if x.dtype.kind != "f" or np.isfinite(x).all():
            return
        bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0]
        raise UserError(f"{name}: not finite in environment {bad} at its step {self._calls}: {x[bad]}")


def make_envs(env_id: str, n_envs: int, seed: int) -> Envs:
    """Environments by Gymnasium's name.

    Raises:
        UserError: no environment of that name.
    """
    try:
        return Envs(gymnasium.make_vec(env_id, n_envs), seed)
    except gymnasium.error.Error as error:
        raise UserError(f"--env-id {env_id}: {error}") from None
