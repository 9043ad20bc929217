"""Environments that are divided among the ranks of torchrun: each rank runs its own, and sees the steps of all.

So an agent acts and learns on every rank as if all environments ran there, and only the simulation is divided.
Environment i has the same seed with any number of ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from automl_ext.rl.envs import workers as env_workers
from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.lanes import Lanes
from automl_ext.rl.envs.making import EnvOptions, make_vector
from automl_ext.rl.networks.body import float32_array
from automl_ext.training import ranks
from automl_ext.training.errors import UserError


def make_divided(env_id: str, n_envs: int, options: EnvOptions) -> DividedVector:
    """Make this rank's part of ``n_envs`` environments, see :func:`automl_ext.rl.envs.making.make_vector`.

    ``vectorization`` "auto" means "sync", except for Atari: an environment's own vector version may draw the random
    numbers of all its environments from one generator, and then the episodes depend on their number.

    Raises:
        UserError: ``n_envs`` is not a multiple of the number of ranks.
    """
    if n_envs % ranks.count():
        raise UserError(f"n_envs: expected a multiple of the number of processes, {ranks.count()}, got {n_envs}")
    if options.vectorization == "auto" and not env_id.startswith("ALE/"):
        options = dataclasses.replace(options, vectorization="sync")
    return DividedVector(make_vector(env_id, n_envs // ranks.count(), options), options.step_timeout)


class DividedVector(VectorEnv[Any, Any, Any]):
    """The environments of all ranks as one vector environment, in the order of the ranks.

    Args:
        own: this rank's environments.
        limit: time limit of a reset or a step of worker processes, in seconds.
    """

    def __init__(self, own: VectorEnv[Any, Any, Any], limit: float) -> None:
        self.own, self.limit, self._broken = own, limit, False
        self.num_envs = own.num_envs * ranks.count()
        self.metadata, self.render_mode = own.metadata, own.render_mode
        self.single_observation_space, self.single_action_space = own.single_observation_space, own.single_action_space
        self.observation_space = batch_space(own.single_observation_space, self.num_envs)
        self.action_space = batch_space(own.single_action_space, self.num_envs)
        env_workers.set_limit(own, limit)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        # Adding 1 to the seed moves on by one environment; of several agents, by one copy.
        seeds = len(self.own.copies) if isinstance(self.own, Lanes) else self.own.num_envs
        assert seed is not None, "Envs seeds every reset"
        first = seed + ranks.rank() * seeds
        with self._named():
            observations, _ = env_workers.reset(self.own, first, self.limit)
            observations = self._checked("observations", observations, self.own.observation_space.shape)
        return ranks.gather_arrays([observations])[0], {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in this rank's environments, and exchange the results."""
        n = self.own.num_envs
        chosen = actions[ranks.rank() * n : (ranks.rank() + 1) * n]
        with self._named():
            result = env_workers.step(self.own, chosen, self.limit)
            observations = self._checked("observations", result[0], self.own.observation_space.shape)
            rewards = self._checked("rewards", result[1], (n,)).astype(np.float64)
            ends = [self._checked("ends", x, (n,)).astype(np.bool_) for x in result[2:4]]
        info, own = {}, result[4]
        parts = [observations, rewards, *ends, *(own[name] for name in ("waiting",) if name in own)]
        observations_of_all, *of_all = ranks.gather_arrays(parts)
        if "waiting" in own:
            info["waiting"] = of_all.pop()
        if self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP and (of_all[1] | of_all[2]).any():
            final = np.zeros_like(observations)
            for i in np.flatnonzero(ends[0] | ends[1]):
                final[i] = own["final_obs"][i]
            info["final_obs"] = ranks.gather_arrays([final])[0]
        return observations_of_all, of_all[0], of_all[1], of_all[2], info

    def close_extras(self, **kwargs: Any) -> None:
        env_workers.close(self.own, self._broken)

    def _checked(self, name: str, values: Any, shape: tuple[int, ...] | None) -> np.ndarray:
        """Return an array of the environments, which must have the same shape on all ranks."""
        found = float32_array(np.asarray(values)) if name == "observations" else np.asarray(values)
        if found.shape != shape:
            raise EnvError(f"environments: {name}: expected {list(shape or ())}, got {list(found.shape)}")
        return found

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the rank in errors of its environments, which it numbers from 0."""
        try:
            yield
        except BaseException as error:
            self._broken = True
            if isinstance(error, EnvError):
                raise EnvError(f"rank {ranks.rank()}: {error}") from None
            raise
