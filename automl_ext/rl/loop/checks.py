"""Checks that the configurations of several agents share."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv

from automl_ext.rl.envs.making import EnvOptions, make_vector
from automl_ext.rl.networks.parameters import check_layers
from automl_ext.training.checks import check_range
from automl_ext.training.files.reading import short
from automl_ext.training.memory import check_memory

# Bytes that an environment takes at least.
PROCESS = 20 << 20  # a worker process, beside what it shares with the others
OBJECT = 5_000  # a Python object with a random generator
STATE = 100  # a row in the arrays of a vector environment
OBSERVATIONS = 3  # copies of an observation: the environment's, the one to act on, the next one
UNCHECKED = 1_000  # so many environments in one process are not checked, to save making one more


def check_max_grad_norm(config: Any) -> None:
    """Check ``max_grad_norm``: the gradient is scaled down to this norm; ``inf`` turns clipping off.

    Raises:
        ValueError: not above 0. A limit of 0 would stop all learning.
    """
    if config.max_grad_norm != math.inf:
        check_range(config, "max_grad_norm", above=0)


def check_hidden(config: Any, units: int = 1, layers: int = 0) -> None:
    """Check ``hidden``: at least ``layers`` layers of at least ``units`` units, which fit into memory.

    Raises:
        ValueError: too few layers, or too few units in one.
        UserError: the layers do not fit into memory.
    """
    hidden = config.hidden
    if len(hidden) < layers or min(hidden, default=units) < units:
        raise ValueError(
            f"hidden: expected at least {layers} layers of at least {units} units each, got {short(tuple(hidden))}"
        )
    check_layers([1, *hidden])  # the networks check the exact sizes


def observation_bytes(space: gymnasium.Space) -> int:
    """The bytes of one observation of a space of arrays."""
    return math.prod(space.shape or ()) * np.dtype(space.dtype or np.float32).itemsize


def check_environments(name: str, n: int, env_id: str, options: EnvOptions) -> None:
    """Refuse more environments than fit into memory, by a low estimate.

    Args:
        name: the option that asks for them.
        n: how many.
        env_id, options: as of :func:`automl_ext.rl.envs.vector.make_envs`.

    Raises:
        UserError: names the option, the memory that they need and the memory that there is.
    """
    if options.vectorization == "async":
        check_memory(name, n * PROCESS)
    elif n > UNCHECKED:
        one = make_vector(env_id, 1, options)
        size = OBJECT if isinstance(one, SyncVectorEnv) else STATE
        size += OBSERVATIONS * observation_bytes(one.single_observation_space)
        one.close()
        check_memory(name, n * size)
