"""Environments that users bring as objects: one ``Env``, a ``VectorEnv`` of Gymnasium, or an environment of EnvPool.

:func:`as_vector` makes a vector environment of them, for :class:`automl_ext.rl.envs.vector.Envs`. :func:`others` makes
new environments like them, for evaluations, where that is possible.

EnvPool (``env_type="gymnasium"``) steps a batch, but its ``observation_space`` and ``action_space`` are those of one
environment. Older versions have no ``single_observation_space``, no ``num_envs`` and no autoreset mode, and restart
episodes in the next step.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from automl_ext.rl.envs.guard import EnvError, Guard, fault
from automl_ext.rl.envs.workers import WorkerVectorEnv
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

PREFIX = "given/"  # of the ids that agents of such environments have in their configuration
STATISTICS = ("NormalizeObservation", "NormalizeReward")  # wrappers of Gymnasium that learn


def is_given(env: object) -> bool:
    """Return whether ``env`` is an environment itself, and not an id or a callable that makes one."""
    return isinstance(env, (gymnasium.Env, VectorEnv)) or pool_size(env) is not None


def name_of(env: Any) -> str:
    """Return the id of an environment in the configuration of its agent. No other process can make it."""
    found = getattr(getattr(env, "spec", None), "id", None) or type(getattr(env, "unwrapped", env)).__name__
    return PREFIX + re.sub(r"[^A-Za-z0-9_.-]+", "-", str(found))


def as_vector(env: Any) -> VectorEnv[Any, Any, Any]:
    """Return a vector environment that acts in ``env``; closing it closes ``env``.

    Raises:
        UserError: an environment of EnvPool in asynchronous mode, or a wrapper that normalizes by statistics.
        EnvError: a space is missing or is not one of Gymnasium's.
    """
    wrapper = next((w for w in _wrappers(env) if type(w).__name__ in STATISTICS), None)
    if wrapper is not None:
        raise UserError(
            f"env: {type(wrapper).__name__}: its statistics would be missing in saved agents and after a resume; use "
            "normalize_observations=True and normalize_rewards=True"
        )
    n = pool_size(env)
    if n is not None:
        return Pool(env, n)
    if isinstance(env, VectorEnv):
        return env
    _check_spaces(env)
    return Single(env)


def others(vector: Any, n: int, seed: int, limit: float) -> VectorEnv[Any, Any, Any] | None:
    """Make n environments like those of :func:`as_vector`; None if the object does not say how it was made.

    Gymnasium's vector environments keep the functions that made their environments. ``gymnasium.make``, ``make_vec``
    and EnvPool leave a specification in the environment. Neither contains later changes of the object.

    Args:
        vector: may have Gymnasium's ``RecordEpisodeStatistics`` around it, and no other wrapper of vector environments.
        n: number of environments.
        seed: seed of an environment of EnvPool, which takes none in ``reset()``.
        limit: time limit of a step of worker processes, in seconds.

    Raises:
        EnvError: the environment's own code failed.
    """
    vector = _without_statistics(vector)
    if isinstance(vector, Pool):
        return vector.others(n, seed)
    if type(vector) is Single:
        makers: list[Callable[[], Any]] = [functools.partial(_made_again, vector.one, i) for i in range(n)]
        try:
            return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        except _Unknown:
            return None
    # Before gymnasium 1.4, a generator of functions is kept, which has nothing left.
    if type(vector) in (SyncVectorEnv, AsyncVectorEnv) and isinstance(vector.env_fns, Sequence):
        functions = [vector.env_fns[i % vector.num_envs] for i in range(n)]
        makers = [functools.partial(_called, function, i) for i, function in enumerate(functions)]
        if type(vector) is AsyncVectorEnv:
            return WorkerVectorEnv(makers, limit)
        made = SyncVectorEnv(makers, observation_mode="different", autoreset_mode=AutoresetMode.SAME_STEP)
        objects = [id(env.unwrapped) for env in (*vector.envs, *made.envs)]
        return made if len(set(objects)) == len(objects) else None  # a function may return the same object again
    spec = None if isinstance(vector, VectorWrapper) else vector.spec
    if spec is not None and spec.kwargs.get("vectorization_mode") == "vector_entry_point":
        kwargs = {k: v for k, v in spec.kwargs.items() if k not in ("num_envs", "vectorization_mode")}
        return gymnasium.make_vec(dataclasses.replace(spec, kwargs=kwargs), n, "vector_entry_point")
    return None


class Single(SyncVectorEnv):
    """The vector environment of one ``Env``."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.one = env
        super().__init__([lambda: Guard(env, "environment 0")], autoreset_mode=AutoresetMode.SAME_STEP)

    def __repr__(self) -> str:
        return str(self.one)


class Pool(VectorEnv[Any, Any, Any]):
    """An environment of EnvPool, or of another library with its interface, as a vector environment.

    Args:
        pool: has ``reset``, ``step`` and the two spaces, which are of one environment or of the batch.
        n: number of environments.

    Raises:
        UserError: the asynchronous mode, or spaces that are not Gymnasium's.
    """

    def __init__(self, pool: Any, n: int) -> None:
        self.pool, self.num_envs = pool, n
        if getattr(pool, "is_async", False):
            size = pool.config.get("batch_size")
            raise UserError(f"env: expected EnvPool with batch_size = num_envs, got {size} of {n} environments")
        _check_spaces(pool)
        default = {} if isinstance(pool, VectorEnv) else {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.metadata = default | (getattr(pool, "metadata", None) or {})
        self.single_action_space = _attribute(pool, "single_action_space") or unbatched(pool.action_space, n)
        self.single_observation_space = _attribute(pool, "single_observation_space") or self._observed()
        self.action_space = batch_space(self.single_action_space, n)
        self.observation_space = batch_space(self.single_observation_space, n)

    def __repr__(self) -> str:
        return f"{type(self.pool).__name__}(num_envs={self.num_envs})"

    def _observed(self) -> gymnasium.Space:
        """Return the space of one observation, inferred from a batch of observations."""
        space = self.pool.observation_space
        try:
            first, _ = self.reset()
        except BaseException as error:
            raise fault("environments", "reset()", error) from None
        leaf: Any = space
        while isinstance(leaf, (spaces.Dict, spaces.Tuple)):
            key: Any = next(iter(leaf.spaces)) if isinstance(leaf, spaces.Dict) else 0
            leaf, first = leaf.spaces[key], first[key]
        return unbatched(space, self.num_envs) if np.shape(first) == leaf.shape else space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Start new episodes. EnvPool's seed is fixed when it is made."""
        return self.pool.reset() if options is None else self.pool.reset(options=options)

    def step(self, actions: Any) -> Any:
        return self.pool.step(actions)

    def render(self) -> Any:
        return self.pool.render()

    def close_extras(self, **kwargs: Any) -> None:
        close = getattr(self.pool, "close", None)
        if close is not None:
            close()

    def others(self, n: int, seed: int) -> Pool | None:
        """Make n environments of EnvPool with the same settings."""
        pool = _without_statistics(self.pool)
        spec: Any = getattr(pool, "spec", None)
        if isinstance(pool, (gymnasium.Wrapper, VectorWrapper)) or not hasattr(spec, "gen_config"):
            return None
        settings = spec.config._asdict() | {"num_envs": n, "batch_size": n, "seed": seed % 2**31}
        return Pool(type(pool)(type(spec)(spec.gen_config(**settings))), n)


def pool_size(env: Any) -> int | None:
    """Return the number of environments of an object with EnvPool's interface; None if it is something else."""
    if isinstance(env, type) or not (hasattr(env, "reset") and hasattr(env, "step")):
        return None
    single = _attribute(env, "single_observation_space")
    if isinstance(env, VectorEnv) and single is not None and env.observation_space != single:
        return None  # its spaces are those of Gymnasium's vector environments
    config = _attribute(env, "config")
    n = _attribute(env, "num_envs") or (config.get("num_envs") if isinstance(config, Mapping) else None)
    return int(n) if isinstance(n, (int, np.integer)) and not isinstance(n, bool) else None


def unbatched(space: gymnasium.Space, n: int) -> gymnasium.Space:
    """Return the space of one environment, if ``space`` is the batch of n equal ones; else return ``space``."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, unbatched(part, n)) for key, part in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([unbatched(part, n) for part in space.spaces])
    if isinstance(space, spaces.MultiDiscrete) and space.shape == (n,):
        sizes, starts = set(space.nvec.tolist()), set(space.start.tolist())
        if len(sizes) == len(starts) == 1:
            return spaces.Discrete(sizes.pop(), start=starts.pop())
    if isinstance(space, spaces.Box) and len(space.shape) > 1 and space.shape[0] == n:
        single = spaces.Box(space.low[0], space.high[0], dtype=space.dtype.type)
        if batch_space(single, n) == space:
            return single
    return space


class _Unknown(Exception):
    """It is not known how to make an environment again."""


def _made_again(env: gymnasium.Env, index: int) -> Guard:
    try:
        if env.spec is None:
            raise ValueError
        made = gymnasium.make(env.spec)
    except (ValueError, TypeError, gymnasium.error.Error):  # for example wrappers that do not keep their arguments
        raise _Unknown from None
    except BaseException as error:
        raise fault(f"environment {index}", "its constructor", error) from None
    return Guard(made, f"environment {index}")


def _called(make: Callable[[], gymnasium.Env], index: int) -> Guard:
    try:
        return Guard(make(), f"environment {index}")
    except BaseException as error:
        raise fault(f"environment {index}", "its constructor", error) from None


def _without_statistics(vector: Any) -> Any:
    while type(vector).__module__.startswith("gymnasium.") and type(vector).__name__ == "RecordEpisodeStatistics":
        vector = vector.env
    return vector


def _wrappers(env: Any) -> Iterator[Any]:
    """Yield the wrappers around an environment, and those around the first environment of a ``SyncVectorEnv``."""
    while isinstance(env, (gymnasium.Wrapper, VectorWrapper)):
        yield env
        env = env.env
    if isinstance(env, SyncVectorEnv):
        yield from _wrappers(env.envs[0])


def _check_spaces(env: Any) -> None:
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gymnasium.Space):
            got = short(getattr(env, name, None))
            raise EnvError(f"env: {name} must be a gymnasium.Space, got {got}; EnvPool: env_type='gymnasium'")


def _attribute(env: Any, name: str) -> Any:
    """Return an attribute of an environment, or of an environment inside its wrappers; None if there is none."""
    found = getattr(env, name, None)
    return getattr(getattr(env, "unwrapped", None), name, None) if found is None else found
