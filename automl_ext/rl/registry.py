"""RL algorithms by name: those of this package, and those of other distributions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from automl_ext.rl.loop import loop
from automl_ext.training.files.reading import read_object
from automl_ext.training.run import CONFIG, algorithm_of

GROUP = "automl_ext.commands"  # entry points of distributions: dicts of commands, see automl_ext_cli/table.py


class Classes(NamedTuple):
    """The locations of the classes of an algorithm, as ``module:class``."""

    config: str
    agent: str


def own(agent: str) -> Classes:
    """Return the classes of an algorithm of this package: the agent A and the configuration AConfig, in one module."""
    return Classes(f"automl_ext.rl.{agent}Config", f"automl_ext.rl.{agent}")


def of_others() -> dict[str, Classes]:
    """Return the algorithms of other distributions. ``automl-ext --help`` names those that cannot be used."""
    found: dict[str, Classes] = {}
    for entry in entry_points(group=GROUP):
        try:
            commands = {name.split()[-1]: command for name, command in entry.load().items() if command.kind == "agent"}
        except Exception:
            continue
        found |= {name: Classes(command.options, command.run) for name, command in commands.items()}
    return found


OWN = {
    "reinforce": own("algorithms.reinforce:Reinforce"),
    "a2c": own("algorithms.a2c:A2C"),
    "a3c": own("algorithms.a3c:A3C"),
    "ppo": own("algorithms.ppo:PPO"),
    "dqn": own("algorithms.dqn:DQN"),
    "rainbow": own("algorithms.rainbow:Rainbow"),
    "bc": own("algorithms.bc:BC"),
    "cql": own("algorithms.cql:CQL"),
    "iql": own("algorithms.iql:IQL"),
    "vdn": own("algorithms.vdn:VDN"),
    "qmix": own("algorithms.qmix:QMIX"),
    "dreamer": own("dreamer:Dreamer"),
}
ALGORITHMS = OWN | {name: classes for name, classes in of_others().items() if name not in OWN}


def is_agent_run(run: Path) -> bool:
    """Return whether a run directory is that of an RL algorithm; ``search reinforce`` only has the name of one.

    Raises:
        UserError: the configuration is missing or damaged.
    """
    return algorithm_of(run) in ALGORITHMS and "space" not in read_object(run / CONFIG)


class Algorithm(NamedTuple):
    """An algorithm's classes.

    Attributes:
        config: its configuration, a :class:`automl_ext.rl.loop.train_config.TrainConfig`.
        agent: its :class:`automl_ext.rl.loop.agent.Agent`.
        train: ``train(config, out, resume, stop_after)``, see :func:`automl_ext.rl.loop.loop.train`.
    """

    config: type
    agent: type
    train: Callable[..., dict[str, Any] | None]


def algorithm(name: str) -> Algorithm:
    """Import an algorithm by its name in :data:`ALGORITHMS`."""
    config, agent = (getattr(import_module(module), cls) for module, cls in (x.split(":") for x in ALGORITHMS[name]))
    return Algorithm(config, agent, functools.partial(loop.train, agent))
