"""Environments that a Python callable makes. They get an id of their own in Gymnasium's registry of this process."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from automl_ext.rl.envs.given import PREFIX as GIVEN
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

PREFIX = "callable/"  # of the ids, which are registered in this process only

_registered: list[tuple[Callable[..., gymnasium.Env], str]] = []


def env_id_of(env: Any) -> str:
    """Return the id of an environment, and register a callable that makes one.

    Args:
        env: an id, which is returned unchanged; or a callable that returns a new environment in every call, for
            example a class. To record videos, the callable must accept ``render_mode``.

    Raises:
        TypeError: neither a string nor a callable.
    """
    if isinstance(env, str):
        return env
    if not callable(env):
        raise TypeError(
            "env: expected an environment id, a callable that makes an environment, or an environment of Gymnasium or "
            f"EnvPool (env_type='gymnasium'), got {short(env)}"
        )
    for known, env_id in _registered:
        if known is env:
            return env_id
    name = re.sub(r"[^A-Za-z0-9_]", "", getattr(env, "__name__", type(env).__name__)) or "env"
    env_id = PREFIX + name
    if number := sum(other == env_id or other.startswith(f"{env_id}-") for _, other in _registered):
        env_id += f"-{number + 1}"  # no version: Gymnasium would advise to use the newest
    gymnasium.register(env_id, entry_point=_entry_point(env))
    _registered.append((env, env_id))
    return env_id


def check_known(env_id: str, where: str) -> None:
    """Check that the environment is not a callable or an object of another process.

    Args:
        env_id: any id; for several tasks, ids with commas between them.
        where: the call or the file that needs it, for the message.

    Raises:
        UserError: the environment is a callable or an object of another process.
    """
    if env_id.startswith(GIVEN):
        name = short(env_id.removeprefix(GIVEN))
        raise UserError(f"{where}: the environment was the Python object {name}: pass env= to rl.load or rl.load_run")
    unknown = next((i for i in env_id.split(",") if i.startswith(PREFIX) and i not in gymnasium.registry), None)
    if unknown is not None:
        name = short(unknown.removeprefix(PREFIX))
        raise UserError(
            f"{where}: the environment was made by the Python callable {name}: pass env= to rl.load or rl.load_run"
        )


def _entry_point(make: Callable[..., gymnasium.Env]) -> Callable[..., gymnasium.Env]:
    last: Callable[[], Any] = lambda: None  # noqa: E731

    def entry_point(**kwargs: Any) -> gymnasium.Env:
        nonlocal last
        env = make(**kwargs)
        if hasattr(env, "possible_agents"):
            raise UserError(
                "env: expected a single agent, got several: name the environment pettingzoo/MODULE:FUNCTION"
            )
        if isinstance(env, VectorEnv):
            raise UserError("env: expected a callable that makes one environment, got several: pass what it returns")
        if env is not None and env is last():
            raise UserError("env: the callable returned the same environment twice; it must make a new one each time")
        if isinstance(env, gymnasium.Env):
            last = weakref.ref(env)
        return env

    return entry_point
