"""Which algorithms there are."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

# name: (module, configuration, agent); imported when asked for.
ALGORITHMS = {
    "reinforce": ("actor_critic.reinforce", "ReinforceConfig", "Reinforce"),
    "a2c": ("actor_critic.a2c", "A2CConfig", "A2C"),
    "a3c": ("actor_critic.a3c", "A3CConfig", "A3C"),
    "dqn": ("dqn.agent", "DQNConfig", "DQN"),
    "rainbow": ("dqn.rainbow", "RainbowConfig", "Rainbow"),
    "dreamer": ("dreamer", "DreamerConfig", "Dreamer"),
}


class Algorithm(NamedTuple):
    config: type
    agent: type
    train: Callable[..., dict[str, Any] | None]


def algorithm(name: str) -> Algorithm:
    """The classes and the training function behind a name of :data:`ALGORITHMS`."""
    module, config, agent = ALGORITHMS[name]
    found = import_module(f"automl_ext.rl.{module}")
    return Algorithm(getattr(found, config), getattr(found, agent), found.train)
