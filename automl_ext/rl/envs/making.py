"""Make vector environments by name: Gymnasium's environments, and the environments of the packages in the extras."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FrameStackObservation

from automl_ext.rl.envs import dmc, lanes
from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.rl.envs.guard import EnvError, Guard, fault
from automl_ext.rl.envs.options import ATARI_FRAMES, EnvOptions
from automl_ext.rl.envs.packed import observation_bytes
from automl_ext.rl.envs.tasks import TaskObservation, space_of_tasks, tasks_of
from automl_ext.rl.envs.workers import WorkerVectorEnv
from automl_ext.rl.envs.wrappers import ActionRepeat, OneHotView, Pixels
from automl_ext.training.errors import UserError, needs_extra
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.user_code import import_module, import_object

MINIGRID = "MiniGrid-"
# Prefix of an environment id -> (module that registers the environment, extra that installs it).
PACKAGES = {
    "ALE/": ("ale_py", "atari"),
    "MinAtar/": ("minatar.gym", "minatar"),
    MINIGRID: ("minigrid", "minigrid"),
    "automl_ext/DeepSea": ("automl_ext.rl.envs.deep_sea", ""),
}

FEWEST_TOGETHER = 4  # environments that the environment's own vectorized version steps
# Lower bounds of an environment's memory, in bytes.
PROCESS = 20 << 20  # a worker process, without the memory that all workers share
OBJECT = 5_000  # a Python object with a random generator
STATE = 100  # a row in the arrays of a vector environment
OBSERVATIONS = 3  # copies of an observation: in the environment, the current one, the next one
UNCHECKED = 1_000  # up to this number, environments are not checked, because the check makes an environment

# Field of EnvOptions -> wrapper(env, value of the field), from the innermost to the outermost. A field with its default
# value adds no wrapper.
WRAPPERS: dict[str, Callable[[gymnasium.Env, Any], gymnasium.Wrapper]] = {
    "action_repeat": ActionRepeat,
    "pixels": Pixels,
    "frame_stack": FrameStackObservation,
}


def make_vector(env_id: str, n_envs: int, options: EnvOptions, render: bool = False) -> VectorEnv[Any, Any, Any]:
    """Make a vector environment. With ``render``, its ``render()`` returns an image of each environment.

    Atari (``ALE/…``): ale-py's vector environment. Frames are gray, 84 × 84; 4 are stacked and 4 game frames make a
    step. Episodes span all lives, unless the option terminal_on_life_loss is on, and rewards are not clipped.
    dm_control (``dmc/DOMAIN-TASK``): see :mod:`automl_ext.rl.envs.dmc`.
    MinAtar (``MinAtar/…``): bool [10, 10, channels]. Freeway reports its limit of 2500 steps as a termination.
    MiniGrid (``MiniGrid-…``): the agent's view, one-hot, bool [7, 7, 20]; with its ``FullyObsWrapper`` the whole grid,
    bool [width, height, 21].
    DeepSea (``automl_ext/DeepSea-v0``): see :mod:`automl_ext.rl.envs.deep_sea`.
    PettingZoo (``pettingzoo/MODULE``): ``n_envs`` copies, see :mod:`automl_ext.rl.envs.lanes`.
    Several tasks (``A,B,C``): ``n_envs`` environments of each task, see :mod:`automl_ext.rl.envs.tasks`. Environment
    c · tasks + i is of task i.

    Raises:
        UserError, ModuleNotFoundError: see :func:`automl_ext.rl.envs.vector.make_envs`.
    """
    if n_envs < 1:
        raise UserError(f"n_envs: expected at least 1, got {n_envs}")
    where = f"--env-id {env_id}"
    names = tasks_of(env_id)
    for name in names:
        _register(name)
    try:
        if options.terminal_on_life_loss and not (len(names) == 1 and env_id.startswith("ALE/")):
            raise UserError("terminal_on_life_loss: expected one Atari game, ALE/…")
        if len(names) > 1:
            return _tasks(names, n_envs, options, render)
        if env_id.startswith(lanes.PREFIX):
            return _lanes(env_id, n_envs, options, render)
        if options.central_critic:
            raise UserError("central_critic: expected an environment of PettingZoo")
        spec, wrapped = _spec(env_id), active_wrappers(options) + ["wrapper"] * bool(options.wrapper)
        mode = options.vectorization
        if mode == "auto":
            own = spec.vector_entry_point is not None and not spec.additional_wrappers
            # Our wrappers are for single environments, and a few of them are faster one by one: CartPole takes 50 µs a
            # step in place of 87, and eight take 174 in place of 91.
            apart = (bool(wrapped) or n_envs < FEWEST_TOGETHER) and not env_id.startswith("ALE/")
            mode = "vector_entry_point" if own and not apart else "sync"
        kwargs = options.arguments | _render_mode(options, render)
        if env_id.startswith("ALE/"):
            return _atari(env_id, n_envs, mode, options)
        if mode == "vector_entry_point":
            if wrapped:
                raise UserError(f"{', '.join(wrapped)}: expected vectorization sync or async, got {mode}")
            return gymnasium.make_vec(env_id, n_envs, mode, **kwargs)
        return _together([functools.partial(make_one, env_id, i, options, kwargs) for i in range(n_envs)], options)
    except gymnasium.error.DependencyNotInstalled as error:
        extra = ' or "automl_ext[box2d]"' if "box2d" in str(error).lower() else ""
        raise UserError(f"{where}: {short(error)}{extra}") from None
    except gymnasium.error.Error as error:
        raise UserError(f"{where}: {short(error)}") from None
    except UserError as error:
        raise type(error)(str(error) if str(error).startswith("--") else f"{where}: {error}") from None
    except BaseException as error:
        raise fault(where, "making the environment", error) from None


def check_environments(name: str, n: int, env_id: str, options: EnvOptions) -> None:
    """Check that a number of environments fits into memory, by a low estimate.

    Args:
        name: the option that sets the number.
        n: number of environments, of each agent or task if there are several.
        env_id, options: see :func:`make_vector`.

    Raises:
        UserError: names the option, the memory needed and the memory of the machine.
    """
    if options.vectorization == "async":
        check_memory(name, n * PROCESS)
    elif n > UNCHECKED:
        few = make_vector(env_id, FEWEST_TOGETHER, options)
        size = OBJECT if isinstance(few, SyncVectorEnv) else STATE
        size += OBSERVATIONS * observation_bytes(few.single_observation_space)
        few.close()
        check_memory(name, n * few.num_envs // FEWEST_TOGETHER * size)


def _render_mode(options: EnvOptions, render: bool) -> dict[str, Any]:
    return {"render_mode": "rgb_array"} if render or options.pixels else {}


def _together(makers: Sequence[Callable[[], gymnasium.Env]], options: EnvOptions) -> VectorEnv[Any, Any, Any]:
    if options.vectorization == "async":
        return WorkerVectorEnv(makers, options.step_timeout)
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def _lanes(env_id: str, n_copies: int, options: EnvOptions, render: bool) -> lanes.Lanes:
    refused = active_wrappers(options) + ["wrapper"] * bool(options.wrapper)
    if options.vectorization not in ("auto", "sync") or refused:
        got = ", ".join([options.vectorization, *refused])
        raise UserError(f"expected vectorization sync and no wrappers, got {got}")
    return lanes.make_lanes(env_id, n_copies, options.central_critic, render, options.arguments)


def _tasks(names: list[str], n_each: int, options: EnvOptions, render: bool) -> VectorEnv[Any, Any, Any]:
    apart = [name for name in names if name.startswith(("ALE/", lanes.PREFIX))]
    if apart or options.central_critic or options.vectorization == "vector_entry_point":
        raise UserError("expected single environments, without central_critic and vector_entry_point")
    kwargs = options.arguments | _render_mode(options, render)
    for name in names:
        _spec(name)
    examples = [make_one(name, i, options, kwargs) for i, name in enumerate(names)]
    try:
        space = space_of_tasks(names, examples)
    finally:
        for env in examples:
            env.close()
    indices = [(copy * len(names) + i, i) for copy in range(n_each) for i in range(len(names))]
    return _together([functools.partial(_task, names[i], i, n, space, options, kwargs) for n, i in indices], options)


def _task(
    env_id: str, task: int, index: int, space: GroupedBox, options: EnvOptions, kwargs: dict[str, Any]
) -> gymnasium.Env:
    return TaskObservation(make_one(env_id, index, options, kwargs), task, space)


def make_one(env_id: str, index: int, options: EnvOptions, kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make environment number ``index`` inside a :class:`Guard` and the wrappers of :data:`WRAPPERS`.

    Raises:
        EnvError: the constructor failed, a space is missing, or the environment cannot render the requested images.
        gymnasium.error.Error, ModuleNotFoundError: as from ``gymnasium.make``.
    """
    where = f"environment {index}"
    try:
        env: gymnasium.Env = gymnasium.make(env_id, **kwargs)
        for name in options.wrapper:
            env = wrap(env, name, where)
        if env_id.startswith(MINIGRID) and isinstance(env.observation_space, gymnasium.spaces.Dict):
            env = OneHotView(env)
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), gymnasium.Space):
                got = type(getattr(env, name, None)).__name__
                raise EnvError(f"{where}: {name} must be a gymnasium.Space, got {got}")
        if kwargs.get("render_mode") != env.render_mode and "render_mode" in kwargs:
            modes = env.metadata.get("render_modes")
            raise EnvError(f"{where}: cannot render images: expected render mode 'rgb_array', got {modes}")
        env = Guard(env, where)
        for name in active_wrappers(options):
            env = WRAPPERS[name](env, getattr(options, name))
        return env
    except (gymnasium.error.Error, ModuleNotFoundError):
        raise
    except BaseException as error:
        if "render_mode" in kwargs and isinstance(error, TypeError) and "'render_mode'" in str(error):
            raise EnvError(f"{where}: cannot render images: its constructor takes no render_mode") from None
        raise fault(where, "its constructor", error) from None


def wrap(env: gymnasium.Env, name: str, where: str) -> gymnasium.Env:
    """Apply the user's wrapper ``MODULE:FUNCTION``.

    Raises:
        UserError: the function cannot be imported or called, or is a wrapper of Gymnasium that learns statistics.
        EnvError: it failed or did not return an environment.
    """
    function = import_object(name, "--wrapper")
    if not callable(function):
        raise UserError(f"--wrapper {name}: expected a function or a class, got {short(function)}")
    try:
        wrapped = function(env)
    except BaseException as error:
        raise fault(where, f"--wrapper {name}", error) from None
    if not isinstance(wrapped, gymnasium.Env):
        raise EnvError(f"{where}: --wrapper {name} must return a gymnasium.Env, got {type(wrapped).__name__}")
    inner: Any = wrapped
    while inner is not env and isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, (gymnasium.wrappers.NormalizeObservation, gymnasium.wrappers.NormalizeReward)):
            raise UserError(
                f"--wrapper {name}: the statistics of {type(inner).__name__} would be missing in evaluations and after "
                "a resume; use --normalize-observations and --normalize-rewards"
            )
        inner = inner.env
    return wrapped


def _spec(env_id: str) -> EnvSpec:
    """Return the registered specification. ``module:name`` imports the module first, like ``gymnasium.make``."""
    module, _, name = env_id.rpartition(":")
    if module:
        import_module(module, f"--env-id {env_id}")
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        text = re.sub(r" Did you mean: `[^`]*`\?", "", short(error)).removesuffix(".")
        raise UserError(f"--env-id {env_id}: {text}{_nearest(name, module)}") from None


def _nearest(name: str, module: str) -> str:
    """Return a hint with the ids that ``module`` registers, or the registered ids of the most similar spelling."""
    own = [spec.id for spec in gymnasium.registry.values() if module and _is_of(spec, module)]
    ids = {registered.lower(): registered for registered in own or gymnasium.registry}
    found = [ids[x] for x in difflib.get_close_matches(name.lower(), ids, n=3)]
    if own and not found:
        return f"; {module} registers {', '.join(sorted(own)[:5])}"
    return f"; the nearest registered ids are {', '.join(found)}" if found else ""


def _is_of(spec: EnvSpec, module: str) -> bool:
    """Return True if the entry point of an environment is in ``module`` or below it."""
    entry = spec.entry_point
    name = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{name}.".startswith(f"{module}.")


def active_wrappers(options: EnvOptions) -> list[str]:
    """Return the names in :data:`WRAPPERS` of the options that differ from their defaults."""
    return [name for name in WRAPPERS if getattr(options, name) != getattr(EnvOptions, name)]


def _atari(env_id: str, n_envs: int, mode: str, options: EnvOptions) -> VectorEnv[Any, Any, Any]:
    """Make ale-py's vector environment.

    It preprocesses by itself, with its defaults: up to 30 no-ops after a reset, then FIRE where the game waits for it;
    actions repeated for four frames, the maximum of the last two, in gray and 84 × 84; stacks of frames.
    """
    if mode != "vector_entry_point":
        raise UserError(f"vectorization: expected auto for Atari, got {mode}")
    refused = [name for name in active_wrappers(options) if name != "frame_stack"] + ["wrapper"] * bool(options.wrapper)
    refused += ["env_kwarg"] * bool(options.env_kwarg)
    if refused:
        raise UserError(f"Atari does not take the option {', '.join(refused)}")
    return gymnasium.make_vec(
        env_id,
        n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_clipping=False,  # Envs clips rewards, so that reported returns stay unclipped
        stack_num=options.frame_stack or ATARI_FRAMES,
    )


def _register(env_id: str) -> None:
    """Import the package that registers the environment."""
    if env_id.startswith(dmc.PREFIX):
        dmc.register(env_id)
    if env_id.startswith(lanes.PREFIX):
        lanes.check_package(env_id)
    for prefix, (module, extra) in PACKAGES.items():
        if not env_id.startswith(prefix):
            continue
        with needs_extra(f"--env-id {env_id}", extra):
            package = __import__(module, fromlist=["register_envs"])
        if extra == "minatar" and "MinAtar/Breakout-v1" not in gymnasium.registry:
            package.register_envs()
