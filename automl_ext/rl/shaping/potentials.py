"""Potentials Φ of known environments: functions from observations [B, ...] to rough estimates of the value, [B]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


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


POTENTIALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mountain-car": mountain_car,
    "frozen-lake": frozen_lake,
}
