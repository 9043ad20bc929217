"""Checks that the configurations of several agents have in common."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from automl_ext.rl.envs.options import EnvOptions
from automl_ext.rl.networks.parameters import check_layers
from automl_ext.training.checks import check_range
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import check_memory

EVERY = 10  # calls between checks; a check synchronizes with the device
TOLERANCE = 0.01  # relative to the support's width; tolerates rounding, and values just outside the support
# Lower bounds of an environment's memory, in bytes.
PROCESS = 20 << 20  # a worker process, without the memory that all workers share
OBJECT = 5_000  # a Python object with a random generator
STATE = 100  # a row in the arrays of a vector environment
OBSERVATIONS = 3  # copies of an observation: in the environment, the current one, the next one
UNCHECKED = 1_000  # up to this number, environments are not checked, because the check makes an environment


def check_max_grad_norm(config: Any) -> None:
    """Check the norm to which gradients are clipped; ``inf`` turns clipping off.

    Raises:
        ValueError: the norm is not above 0. A norm of 0 would stop all learning.
    """
    if config.max_grad_norm != math.inf:
        check_range(config, "max_grad_norm", above=0)


def check_hidden(config: Any, units: int = 1, layers: int = 0) -> None:
    """Check ``config.hidden``, the units of each hidden layer: at least ``layers``, of ``units`` or more each.

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
    """Return the size in bytes of one observation of an array space."""
    return math.prod(space.shape or ()) * np.dtype(space.dtype or np.float32).itemsize


def check_environments(name: str, n: int, env_id: str, options: EnvOptions) -> None:
    """Check that a number of environments fits into memory, by a low estimate.

    Args:
        name: the option that sets the number.
        n: number of environments, of each agent or task if there are several.
        env_id, options: see :func:`automl_ext.rl.envs.vector.make_envs`.

    Raises:
        UserError: names the option, the memory needed and the memory of the machine.
    """
    if options.vectorization == "async":
        check_memory(name, n * PROCESS)
    elif n > UNCHECKED:
        from automl_ext.rl.envs.making import FEWEST_TOGETHER, make_vector

        few = make_vector(env_id, FEWEST_TOGETHER, options)
        size = OBJECT if isinstance(few, SyncVectorEnv) else STATE
        size += OBSERVATIONS * observation_bytes(few.single_observation_space)
        few.close()
        check_memory(name, n * few.num_envs // FEWEST_TOGETHER * size)


class SupportCheck:
    """Warn once when targets leave [v_min, v_max]. The projection clips such targets to the support.

    Args:
        v_min, v_max: the support, the range of the atoms.
    """

    def __init__(self, v_min: float, v_max: float) -> None:
        self.v_min, self.v_max = v_min, v_max
        self.calls, self.warned = 0, False

    def check(self, targets: Tensor) -> None:
        """Check the expected returns [N] of a batch of targets, before their projection, of every tenth batch."""
        self.calls += 1
        if self.warned or self.calls % EVERY != 1:
            return
        smallest, largest = (float(x) for x in targets.aminmax())
        slack = TOLERANCE * (self.v_max - self.v_min)
        if smallest < self.v_min - slack or largest > self.v_max + slack:
            self.warned = True
            warnings.warn(
                f"distributional: expected returns in [{smallest:.4g}, {largest:.4g}] leave the support "
                f"[v_min, v_max] = [{self.v_min:g}, {self.v_max:g}] and are clipped to it; set --v-min and --v-max to "
                "the range of discounted returns",
                stacklevel=3,
            )
