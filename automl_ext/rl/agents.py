"""Make an agent by the name of its algorithm, load a saved agent, or load the agent of a run directory."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from automl_ext.rl.envs.given import is_given
from automl_ext.rl.envs.groups import names_of
from automl_ext.rl.envs.options import EnvOptions, frames_of
from automl_ext.rl.envs.vector import NoEnvs
from automl_ext.rl.extras import EXTRAS, Extras
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.saved import read_agent
from automl_ext.rl.loop.train_config import APPLIED, Env, with_env
from automl_ext.rl.presets import preset as with_preset
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.rl.reports.evaluate_run import agent_of, load_best, load_last
from automl_ext.training.config import from_dict, to_dict, with_values
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.files.weights import check_fit
from automl_ext.training.user_code import check_trusted, imported_modules, module_in, own_names


def make(
    name: str, env: Env | None = None, *, preset: str | None = None, extras: Iterable[Any] = (), **options: Any
) -> Agent:
    """Make an agent: ``make("a2c", "CartPole-v1", total_steps=50_000, lr=1e-3)``.

    Args:
        name: the algorithm: reinforce, a2c, a3c, ppo, dqn, rainbow, bc, cql, iql, vdn, qmix or dreamer.
        env: an environment id, ``module:Name-v0`` to import a module first, or a callable that makes a new environment
            in every call: a class or ``lambda: MyEnv()``. Or an environment itself: an ``Env``, a Gymnasium
            ``VectorEnv``, or one of EnvPool (``env_type="gymnasium"``); the agent owns it, and ``n_envs`` is its
            number of environments. a3c takes an id only. None: the environment of the preset, or of the algorithm's
            configuration, usually CartPole-v1.
        preset: name of a set of option values, as in ``--preset``.
        extras: additions to the algorithm, for example ``[CountBonus(0.1)]``; see :mod:`automl_ext.rl.extras`. Extras
            of your own have the interface :class:`~automl_ext.rl.loop.seams.Extra`; they are attached last, and saved
            agents and the configurations of runs do not contain them.
        **options: fields of the algorithm's configuration, for example of :class:`A2CConfig`, and of
            :class:`EnvOptions`.

    Raises:
        UserError: unknown algorithm, option or environment; a value of the wrong type or out of range; an extra that is
            not possible with the algorithm.
        TypeError: ``env`` is none of these.
    """
    if name not in ALGORITHMS:
        nearest = difflib.get_close_matches(name.lower(), ALGORITHMS, n=1) if isinstance(name, str) else []
        hint = f"; the nearest is {nearest[0]}" if nearest else ""
        raise UserError(f"make: algorithm: expected one of {', '.join(ALGORITHMS)}, got {short(name)}{hint}")
    found = algorithm(name)
    ours = [extra for extra in extras if type(extra) in EXTRAS]
    config = found.config(extras=Extras.of(ours))
    if preset is not None:
        config = with_preset(preset, config)
    table: dict[str, Any] = {"env": {}}
    for key, value in options.items():
        value = list(value) if isinstance(value, tuple) else value
        (table["env"] if key in EnvOptions.__dataclass_fields__ else table)[key] = value
    refused = [key for key in table["env"] if key not in APPLIED] if is_given(env) else []
    if refused:
        raise UserError(
            f"make: {', '.join(refused)}: expected an environment id, or a callable that makes an environment, got an "
            "environment that exists; wrap it before"
        )
    config, envs = with_env(with_values(config, table, f"make({name!r})"), env)
    needs = getattr(config, "needs", {})
    unread = [f"{key} without {needs[key]}=True" for key in options if key in needs and not getattr(config, needs[key])]
    if unread:
        warnings.warn(f"make({name!r}): nothing reads {', '.join(unread)}", stacklevel=2)
    if envs is not None and options.get("n_envs", envs.n_envs) != envs.n_envs:
        raise UserError(f"make: n_envs: expected {envs.n_envs}, as the environment has, got {options['n_envs']}")
    agent: Agent = found.agent(config) if envs is None else found.agent(config, envs)
    try:
        for extra in extras:
            if type(extra) not in EXTRAS:
                agent.attach(extra)
    except BaseException:
        agent.close()
        raise
    return agent


def load(path: str | Path, env: Env | None = None, trust: Iterable[str] = ()) -> Agent:
    """Load an agent from a file that :meth:`Agent.save` wrote. Nothing in the file is executed.

    The agent needs no environment to predict. ``learn`` and ``evaluate`` make the environments of the configuration.
    Training continues from the saved policy, with a new optimizer and an empty replay. Networks that are not part of
    the policy are new: Dreamer's value network, IQL's Q-networks.

    Args:
        path: the file.
        env: replaces the environment of the configuration, as in :func:`make`; needed if that was a callable or an
            object of another process.
        trust: Python modules that the configuration may name (``env_id``, ``wrapper``, a potential); they are
            imported when environments are made. The module that ``env`` names and your modules that this process
            has imported are trusted.

    Raises:
        UserError: the file is missing, damaged, of a later version, or not a saved agent; or it names a module that is
            not in ``trust``.
    """
    saved, spaces = read_agent(Path(path))
    if saved["algorithm"] not in ALGORITHMS:
        raise UserError(f"{path}: algorithm: expected one of {', '.join(ALGORITHMS)}, got {short(saved['algorithm'])}")
    found = algorithm(saved["algorithm"])
    try:
        config = from_dict(found.config(extras=Extras()), saved["config"], str(path), saved["automl_ext"])
        if config.device != "cpu":
            config = dataclasses.replace(config, device="auto")  # this machine may have no GPU
        config, envs = with_env(config, env)
        check_trusted(own_names(to_dict(config)), _trusted(env, trust), path)
        frames = frames_of(str(config.env_id), config.env, spaces[0])
        agent = found.agent(config, NoEnvs(*spaces, config.n_envs * len(names_of(spaces[0])), frames))
        check_fit(saved["policy"], agent.policy_state(), "policy")
        agent.set_policy(saved["policy"])
        if envs is not None:
            agent.use_envs(envs)
    except (UserError, ValueError, TypeError, KeyError, OverflowError, RuntimeError) as error:
        text = str(error) if isinstance(error, UserError) else short(error)
        raise UserError(text if text.startswith(str(path)) else f"{path}: cannot make the agent: {text}") from None
    return agent


def load_run(
    run: str | Path, policy: Literal["best", "last"] = "best", env: Env | None = None, trust: Iterable[str] = ()
) -> Agent:
    """Load the agent of a run directory, with its environments.

    Args:
        run: a run directory of ``automl-ext train`` or of ``learn(out=...)``.
        policy: "best", the best policy of the run; or "last", the newest checkpoint with optimizer, replay and
            environments, so that ``learn`` continues exactly.
        env: replaces the environment of the configuration, as in :func:`make`; needed if that was a callable or an
            object of another process.
        trust: Python modules that the configuration may name (``env_id``, ``wrapper``, a potential); they are
            imported. The module that ``env`` names and your modules that this process has imported are trusted.

    Raises:
        UserError: the run or the policy does not exist, a file is damaged, or the configuration names a module that is
            not in ``trust``.
        ValueError: ``policy`` is neither "best" nor "last".
    """
    if policy not in ("best", "last"):
        raise ValueError(f"policy: expected 'best' or 'last', got {policy!r}")
    run = Path(run)
    _, agent = agent_of(run, _trusted(env, trust), env)
    try:
        if policy == "best":
            load_best(run, agent)
            agent.set_policy(agent.policy_state())
        else:
            load_last(run, agent)
    except BaseException:
        agent.close()
        raise
    return agent


def _trusted(env: Env | None, trust: Iterable[str]) -> list[str]:
    """Return the modules in ``trust``, the module of the id ``env``, and the user's modules in this process."""
    return [*trust, *(module_in(name) for name in own_names({"env_id": env})), *imported_modules()]
