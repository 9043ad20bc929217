"""Potential-based reward shaping (Ng, Harada and Russell 1999, https://dl.acm.org/doi/10.5555/645528.657613).

r' = r + γ Φ(s') − Φ(s), with Φ = 0 after a termination. For every function Φ the optimal policies are those of r:
q'(s, a) = q(s, a) − Φ(s). A good Φ is an estimate of the value V(s).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.shaping.potentials import POTENTIALS
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.user_code import import_object, raised

Potential = Callable[[np.ndarray], np.ndarray]  # observations [B, ...] -> Φ, [B]


def shaping_rewards(before: Any, after: Any, terminated: Any, gamma: float) -> np.ndarray:
    """Compute F = γ Φ(s') − Φ(s), with Φ(s') = 0 where the episode terminated. All arrays have the same shape."""
    return gamma * np.where(terminated, 0.0, after) - before


class Shaping:
    """A :class:`~automl_ext.rl.envs.vector.StepTransform` that shapes the rewards.

    A truncated step uses the potential of its true final observation. Steps that only restart an episode are unchanged.

    Args:
        potential: Φ, from observations [B, ...] to numbers [B].
        gamma: the discount factor with which the agent learns. With another one the optimal policy may change.
        name: of the potential, for messages.
    """

    def __init__(self, potential: Potential, gamma: float, name: str = "potential") -> None:
        self.potential, self.gamma, self.name = potential, gamma, name

    def __call__(self, step: Step) -> Step:
        before, after = self.values(step.observations), self.values(step.next_observations)
        shaping = shaping_rewards(before, after, step.terminated, self.gamma)
        rewards = step.rewards + np.where(step.valid, shaping, 0.0)
        return step._replace(rewards=rewards.astype(np.float32))

    def values(self, observations: np.ndarray) -> np.ndarray:
        """Compute Φ, float64 [B].

        Raises:
            UserError: the potential raised an exception, or did not return B finite numbers.
        """
        try:
            values = np.asarray(self.potential(observations), np.float64)
        except Exception as error:
            raise UserError(f"--potential {self.name} {raised(error)}") from None
        if values.shape != observations.shape[:1] or not np.isfinite(values).all():
            raise UserError(
                f"--potential {self.name}: expected {len(observations)} finite numbers for observations "
                f"{list(observations.shape)}, got {short(values)}"
            )
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the potential does not change."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def shape_rewards(envs: Any, potential: str | None, gamma: float) -> None:
    """Let environments shape their rewards with the potential of ``--potential``; None: do nothing.

    Args:
        envs: training environments, :class:`~automl_ext.rl.envs.vector.Envs`, or
            :class:`~automl_ext.rl.loop.saved.NoEnvs` of a loaded agent.
        potential: a name in :data:`~automl_ext.rl.shaping.potentials.POTENTIALS`, or MODULE:FUNCTION.
        gamma: the agent's discount factor.

    Raises:
        UserError: the potential does not exist, or does not take the environments' observations.
    """
    if potential is None:
        return
    function = potential_of(potential)
    shaping = Shaping(function, gamma, potential)
    if isinstance(envs, Envs):
        shaping.values(envs.observations)  # before a run directory exists
    add_transform(envs, shaping)


def potential_of(name: str) -> Potential:
    """Return the potential of ``--potential``.

    Raises:
        UserError: the name is unknown, or the function cannot be imported.
    """
    if name in POTENTIALS:
        return POTENTIALS[name]
    if ":" not in name:
        raise UserError(f"--potential {name}: expected one of {', '.join(POTENTIALS)}, or MODULE:FUNCTION")
    function = import_object(name, "--potential")
    if not callable(function):
        raise UserError(f"--potential {name}: expected a function, got {short(function)}")
    return function
