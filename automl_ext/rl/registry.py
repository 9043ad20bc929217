"""The registry of algorithms: one line each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from automl_ext.rl.loop import loop

# name: (module, configuration, agent); a module is imported when its algorithm is used.
ALGORITHMS = {
    "reinforce": ("automl_ext.rl.actor_critic.reinforce", "ReinforceConfig", "Reinforce"),
    "a2c": ("automl_ext.rl.actor_critic.a2c", "A2CConfig", "A2C"),
    "a3c": ("automl_ext.rl.actor_critic.a3c", "A3CConfig", "A3C"),
    "ppo": ("automl_ext.rl.actor_critic.ppo", "PPOConfig", "PPO"),
    "dqn": ("automl_ext.rl.dqn.agent", "DQNConfig", "DQN"),
    "rainbow": ("automl_ext.rl.dqn.rainbow", "RainbowConfig", "Rainbow"),
    "bc": ("automl_ext.rl.imitation.bc", "BCConfig", "BC"),
    "cql": ("automl_ext.rl.offline.cql", "CQLConfig", "CQL"),
    "iql": ("automl_ext.rl.offline.iql", "IQLConfig", "IQL"),
    "vdn": ("automl_ext.rl.multi_agent.vdn", "VDNConfig", "VDN"),
    "qmix": ("automl_ext.rl.multi_agent.qmix", "QMIXConfig", "QMIX"),
    "dreamer": ("automl_ext.rl.dreamer.agent", "DreamerConfig", "Dreamer"),
}


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
    module, config, agent = ALGORITHMS[name]
    found = import_module(module)
    built = getattr(found, agent)
    return Algorithm(getattr(found, config), built, functools.partial(loop.train, name, built))
