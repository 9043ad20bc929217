"""RL algorithms by name. A new one is a file and an entry in ``automl_ext_cli/table.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from automl_ext.rl.loop import loop
from automl_ext_cli.table import load, named

ALGORITHMS = named("agent")


class Algorithm(NamedTuple):
    """An algorithm's classes.

    Attributes:
        config: its configuration, a :class:`automl_ext.rl.loop.agent.TrainConfig`.
        agent: its :class:`automl_ext.rl.loop.agent.Agent`.
        train: ``train(config, out, resume, stop_after)``, see :func:`automl_ext.rl.loop.loop.train`.
    """

    config: type
    agent: type
    train: Callable[..., dict[str, Any] | None]


def algorithm(name: str) -> Algorithm:
    """Import an algorithm by its name in :data:`ALGORITHMS`."""
    command = ALGORITHMS[name]
    agent = load(command.run)
    return Algorithm(load(command.options), agent, functools.partial(loop.train, agent))
