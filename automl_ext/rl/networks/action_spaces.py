"""Action spaces: the spaces that agents support, and the map from normalized actions to a box."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

BOUNDED = 1e6  # a dimension with a bound beyond ±this counts as unbounded


def unsupported(space: gymnasium.Space) -> UserError:
    """Return the error for an unsupported action space. It lists the spaces that each agent supports."""
    return UserError(
        f"action space {short(space)}: all agents take Discrete; a2c, a3c, ppo and reinforce also MultiDiscrete, "
        "MultiBinary and Box of floats, bc Box of floats, and dreamer bounded Box of floats"
    )


def discrete(space: gymnasium.Space) -> tuple[int, int]:
    """Return the number of actions and the first action of a Discrete space.

    Raises:
        UserError: the space is not Discrete.
    """
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise unsupported(space)
    return int(space.n), int(space.start)


class BoxScaling:
    """The affine map from normalized actions to a box: [−1, 1] to [low, high] in every bounded dimension.

    A dimension with bounds that are infinite or beyond ±1e6 is not scaled. A dimension whose bounds are equal is
    shifted only, so that recorded actions can be divided by ``half``.

    Args:
        space: a Box of floats.

    Attributes:
        bounded: bool with the space's shape, True for dimensions with bounds within ±1e6.
        middle, half: float64 with the space's shape; an action of the box is ``middle + half * normalized``.
    """

    def __init__(self, space: Box) -> None:
        self.shape, self.dtype, self.low, self.high = space.shape, space.dtype, space.low, space.high
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.bounded = (np.abs(low) <= BOUNDED) & (np.abs(high) <= BOUNDED)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite bounds, whose results are not used
            self.middle = np.where(self.bounded, (high + low) / 2, 0.0)
            self.half = np.where(self.bounded & (low < high), (high - low) / 2, 1.0)

    def warn_if_unscaled(self) -> None:
        """Warn about dimensions that are not scaled."""
        if not self.bounded.all():
            warnings.warn(
                f"action space: {(~self.bounded).sum()} of {self.bounded.size} dimensions have no bounds within "
                f"±{BOUNDED:g}; their actions are not scaled: the policy starts with mean 0 and standard deviation 1",
                stacklevel=3,
            )

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Map normalized actions [N, ...] to the box, [N, *shape], with clipping."""
        scaled = actions.reshape(-1, *self.shape) * self.half + self.middle
        return np.clip(scaled, self.low, self.high).astype(self.dtype)
