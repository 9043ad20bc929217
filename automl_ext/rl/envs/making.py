"""Vector environments by name: Gymnasium's own and those of the packages behind our extras."""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FrameStackObservation

from automl_ext.rl.envs import dmc
from automl_ext.rl.envs.guard import EnvError, Guard, fault
from automl_ext.rl.envs.workers import WorkerVectorEnv
from automl_ext.rl.envs.wrappers import ActionRepeat, Pixels
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

# What registers an environment: name's beginning -> (module, extra).
PACKAGES = {"ALE/": ("ale_py", "atari"), "MinAtar/": ("minatar.gym", "minatar")}


@dataclass
class EnvOptions:
    """How environments are made and stepped, in training and in evaluation alike.

    Raises:
        ValueError: a number out of range.
    """

    vectorization: Literal["auto", "sync", "async", "vector_entry_point"] = "auto"
    """auto: the environment's own vector version where it has one (CartPole, Atari), else sync: one after another in
    this process. async: each in a process of its own, for slow simulators."""
    frame_stack: int | None = None
    """An observation is the last so many: [frames, ...]. None: as the environment is; Atari stacks 4."""
    reward_clip: float | None = None
    """Learn from rewards clipped to ±this. Returns that are reported stay as the environment pays them."""
    action_repeat: int = 1
    """Every action is done so many times, which is one step."""
    pixels: bool = False
    """Observe what is rendered, uint8 [64, 64, 3], in place of what the environment observes."""
    step_timeout: float = 300.0
    """Stop with an error when a reset or a step takes longer, in seconds. Only worker processes can be watched:
    vectorization async, and A3C's workers."""

    def __post_init__(self) -> None:
        check_range(self, "frame_stack", low=1, high=1000)
        check_range(self, "action_repeat", low=1)
        check_range(self, "reward_clip", "step_timeout", above=0)


def make_vector(env_id: str, n_envs: int, options: EnvOptions, render: bool = False) -> VectorEnv[Any, Any, Any]:
    """A vector environment; with ``render`` its ``render()`` returns an image of each.

    Atari (``ALE/…``): ale-py's own, gray 84 × 84 frames, 4 stacked, each for 4 of the game, whole lives, full rewards.
    dm_control (``dmc/DOMAIN-TASK``): see :mod:`automl_ext.rl.envs.dmc`.
    MinAtar (``MinAtar/…``): bool [10, 10, channels]; Freeway ends after 2500 steps, which it calls a termination.

    Raises:
        UserError, ModuleNotFoundError: see :func:`automl_ext.rl.envs.vector.make_envs`.
    """
    if n_envs < 1:
        raise UserError(f"n_envs: expected at least 1, got {n_envs}")
    where = f"--env-id {env_id}"
    _register(env_id)
    try:
        spec, wrappers = _spec(env_id), _wrappers(options)
        mode = options.vectorization
        if mode == "auto":
            own = spec.vector_entry_point is not None and not spec.additional_wrappers
            apart = bool(wrappers) and not env_id.startswith("ALE/")  # wrapped one by one
            mode = "vector_entry_point" if own and not apart else "sync"
        kwargs: dict[str, Any] = {"render_mode": "rgb_array"} if render or options.pixels else {}
        if env_id.startswith("ALE/"):
            return _atari(env_id, n_envs, mode, options)
        if mode == "vector_entry_point":
            if wrappers:
                what = "frames are stacked, actions repeated and pixels observed"
                raise UserError(f"{where}: {what} with vectorization sync or async")
            return gymnasium.make_vec(env_id, n_envs, mode, **kwargs)
        makers = [functools.partial(make_one, env_id, i, wrappers, kwargs) for i in range(n_envs)]
        if mode == "async":
            return WorkerVectorEnv(makers, options.step_timeout)
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    except gymnasium.error.DependencyNotInstalled as error:
        extra = ' or "automl_ext[box2d]"' if "box2d" in str(error).lower() else ""
        raise UserError(f"{where}: {short(error)}{extra}") from None
    except gymnasium.error.Error as error:
        raise UserError(f"{where}: {short(error)}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: {short(error)}: install it, or put its folder on PYTHONPATH") from None
    except EnvError as error:
        raise EnvError(f"{where}: {error}") from None
    except BaseException as error:
        raise fault(where, "making it", error) from None


def make_one(
    env_id: str, index: int, wrappers: list[Callable[[gymnasium.Env], gymnasium.Wrapper]], kwargs: dict[str, Any]
) -> gymnasium.Env:
    """One environment behind its :class:`Guard`, with our wrappers around it.

    Raises:
        EnvError: its constructor failed, it has no spaces, or no images where they are asked for.
        gymnasium.error.Error, ModuleNotFoundError: as from ``gymnasium.make``.
    """
    where = f"environment {index}"
    try:
        env: gymnasium.Env = gymnasium.make(env_id, **kwargs)
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), gymnasium.Space):
                got = type(getattr(env, name, None)).__name__
                raise EnvError(f"{where}: {name} must be a gymnasium.Space, got {got}")
        if kwargs.get("render_mode") != env.render_mode and "render_mode" in kwargs:
            modes = env.metadata.get("render_modes")
            raise EnvError(f"{where}: it has no images: its render modes are {modes}, expected 'rgb_array'")
        env = Guard(env, where)
        for wrapper in wrappers:
            env = wrapper(env)
        return env
    except (gymnasium.error.Error, ModuleNotFoundError):
        raise
    except BaseException as error:
        if "render_mode" in kwargs and isinstance(error, TypeError) and "'render_mode'" in str(error):
            raise EnvError(f"{where}: it has no images: its constructor takes no render_mode") from None
        raise fault(where, "its constructor", error) from None


def _spec(env_id: str) -> EnvSpec:
    """What is registered by this name; ``module:name`` imports the module first, as ``gymnasium.make`` does."""
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise
        except BaseException as error:
            raise fault(f"--env-id {env_id}", f"importing {module}", error) from None
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        text = re.sub(r" Did you mean: `[^`]*`\?", "", short(error)).removesuffix(".")
        raise UserError(f"--env-id {env_id}: {text}{_nearest(name)}") from None


def _nearest(name: str) -> str:
    """The registered ids that are spelled most alike."""
    ids = {registered.lower(): registered for registered in gymnasium.registry}
    found = difflib.get_close_matches(name.lower(), ids, n=3)
    return f"; the nearest registered ids are {', '.join(ids[x] for x in found)}" if found else ""


def _wrappers(options: EnvOptions) -> list[Callable[[gymnasium.Env], gymnasium.Wrapper]]:
    """Of each environment, from the inside out."""
    wrappers: list[Callable[[gymnasium.Env], gymnasium.Wrapper]] = []
    if options.action_repeat > 1:
        wrappers.append(functools.partial(ActionRepeat, repeat=options.action_repeat))
    if options.pixels:
        wrappers.append(Pixels)
    if options.frame_stack is not None:
        wrappers.append(functools.partial(FrameStackObservation, stack_size=options.frame_stack))
    return wrappers


def _atari(env_id: str, n_envs: int, mode: str, options: EnvOptions) -> VectorEnv[Any, Any, Any]:
    if mode != "vector_entry_point":
        raise UserError(f"--env-id {env_id}: Atari runs in ale-py's vector environment: vectorization auto, not {mode}")
    if options.pixels or options.action_repeat > 1:
        raise UserError(f"--env-id {env_id}: Atari is seen in pixels and repeats actions by itself")
    return gymnasium.make_vec(
        env_id,
        n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_clipping=False,  # ours is in Envs, which keeps the returns as they are paid
        stack_num=4 if options.frame_stack is None else options.frame_stack,
    )


def _register(env_id: str) -> None:
    """Import the package that brings the environment."""
    if env_id.startswith(dmc.PREFIX):
        dmc.register(env_id)
    for beginning, (module, extra) in PACKAGES.items():
        if not env_id.startswith(beginning):
            continue
        try:
            package = __import__(module, fromlist=["register_envs"])
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'--env-id {env_id} needs {error.name}: pip install "automl_ext[{extra}]"', name=error.name
            ) from None
        if extra == "minatar" and "MinAtar/Breakout-v1" not in gymnasium.registry:
            package.register_envs()
