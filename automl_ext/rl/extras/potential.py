"""Potential-based reward shaping (Ng, Harada and Russell 1999, https://dl.acm.org/doi/10.5555/645528.657613).

r' = r + γ Φ(s') − Φ(s), with Φ = 0 after a termination. For every function Φ the optimal policies are those of r:
q'(s, a) = q(s, a) − Φ(s). A good Φ is an estimate of the value V(s).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from tyro.conf import arg

from automl_ext.rl.envs.packed import check_not_packed
from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.loop.seams import Seam
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.user_code import import_object, raised

Function = Callable[[np.ndarray], np.ndarray]  # observations [B, ...] -> Φ, [B]


@dataclass
class Potential:
    """Rewards shaped by a potential, with the agent's discount factor.

    Attaching it raises UserError if the potential does not exist or does not take the environments' observations.
    """

    name: ClassVar[str] = "potential"
    seams: ClassVar[frozenset[Seam]] = frozenset({"rewards"})

    function: Annotated[str | None, arg(name="potential.function")] = None
    """Shape rewards by this potential: mountain-car, frozen-lake, or your own MODULE:FUNCTION."""

    def attach(self, agent: Any) -> None:
        check_not_packed(agent.spaces[0], self.name)
        assert self.function is not None
        shaping = Shaping(potential_of(self.function), agent.config.gamma, self.function)
        if isinstance(agent.envs, Envs):  # not of a loaded agent
            shaping.values(agent.envs.observations)  # before a run directory exists
        add_transform(agent.envs, shaping)


class Shaping:
    """A :class:`~automl_ext.rl.envs.vector.StepTransform` that shapes the rewards.

    A truncated step uses the potential of its true final observation. Steps that only restart an episode are unchanged.

    Args:
        potential: Φ, from observations [B, ...] to numbers [B].
        gamma: the discount factor of the agent. With another one, the optimal policy may change.
        name: name of the potential, for messages.
    """

    def __init__(self, potential: Function, gamma: float, name: str = "function") -> None:
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
            raise UserError(f"potential {self.name} {raised(error)}") from None
        if values.shape != observations.shape[:1] or not np.isfinite(values).all():
            raise UserError(
                f"potential {self.name}: expected {len(observations)} finite numbers for observations "
                f"{list(observations.shape)}, got {short(values)}"
            )
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the potential does not change."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


def shaping_rewards(before: Any, after: Any, terminated: Any, gamma: float) -> np.ndarray:
    """Compute F = γ Φ(s') − Φ(s), with Φ(s') = 0 where the episode terminated. All arrays have the same shape."""
    return gamma * np.where(terminated, 0.0, after) - before


def potential_of(name: str) -> Function:
    """Return the potential with a name in :data:`POTENTIALS`, or MODULE:FUNCTION.

    Raises:
        UserError: the name is unknown, or the function cannot be imported.
    """
    if name in POTENTIALS:
        return POTENTIALS[name]
    if ":" not in name:
        raise UserError(f"potential {name}: expected one of {', '.join(POTENTIALS)}, or MODULE:FUNCTION")
    function = import_object(name, "potential")
    if not callable(function):
        raise UserError(f"potential {name}: expected a function, got {short(function)}")
    return function


def mountain_car(observations: np.ndarray) -> np.ndarray:
    """Estimate the value in MountainCar by the car's mechanical energy.

    The car moves in the potential energy U(x) = 0.0025 sin(3x) / 3. Φ is 0 with the energy of a car that stands at the
    goal (x = 0.5), and −50 with that of a car that stands in the valley.

    Args:
        observations: position x and velocity v, [B, 2].

    Raises:
        ValueError: another shape.
    """
    if observations.shape[1:] != (2,):
        raise ValueError(f"mountain-car: expected observations [2], got {list(observations.shape[1:])}")
    x, v = observations.T.astype(np.float64)
    energy = 0.0025 * np.sin(3 * x) / 3 + v**2 / 2
    valley, goal = -0.0025 / 3, 0.0025 * np.sin(1.5) / 3
    return -50 * np.clip((goal - energy) / (goal - valley), 0, 1)


def frozen_lake(observations: np.ndarray) -> np.ndarray:
    """Estimate the value in FrozenLake by the distance to the goal, the last field: Φ = 1 − distance / largest.

    Args:
        observations: one-hot vectors of the fields of a square, [B, n²], as from
            ``--wrapper gymnasium.wrappers:FlattenObservation``.

    Raises:
        ValueError: other observations.
    """
    fields = observations.shape[-1] if observations.ndim == 2 else 0
    side = round(fields**0.5)
    if side < 2 or side * side != fields or not np.array_equal(observations, observations == 1):
        raise ValueError(f"frozen-lake: expected one-hot observations [n * n], got {list(observations.shape[1:])}")
    row, column = np.divmod(observations.argmax(1), side)
    return (row + column) / (2 * (side - 1))


POTENTIALS: dict[str, Function] = {"mountain-car": mountain_car, "frozen-lake": frozen_lake}
