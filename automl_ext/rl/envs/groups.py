"""Observations of several agents or tasks: arrays of one shape that end with a one-hot vector of the agent or task.

The networks of all algorithms take such observations unchanged. :mod:`automl_ext.rl.networks.grouped` reads the
one-hot vector to choose between the networks, the heads or the statistics of the agents or tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from torch import Tensor

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

Separate = Literal["none", "heads", "networks"]  # what each group has for itself, see GroupedActorCritic


class GroupedBox(Box):
    """A Box whose observations contain the one-hot vector of a group: an agent or a task.

    Along the last axis, an observation is [own | one-hot vector | hidden]. In an image, each entry is a channel.

    Args:
        shape, dtype: as in Box; the dtype is bool, uint8 or float32. A one of the one-hot vector is 255 in uint8.
        names: the groups, in the order of the one-hot vector.
        visible: number of entries of the last axis that a policy sees. Only a centralized critic sees the rest.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, names: Sequence[str], visible: int | None = None) -> None:
        kind = np.dtype(dtype)
        low, high = {"b": (0, 1), "u": (0, 255)}.get(kind.kind, (-np.inf, np.inf))
        super().__init__(low, high, shape, kind.type)
        self.names = tuple(names)
        self.visible = shape[-1] if visible is None else visible

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, GroupedBox)
            and super().__eq__(other)
            and (self.names, self.visible) == (other.names, other.visible)
        )

    @property
    def own(self) -> int:
        """Number of entries before the one-hot vector."""
        return self.visible - len(self.names)

    def groups(self, observations: Any) -> Any:
        """Return the group of each observation, int64 [N], from an array or a tensor [N, ...]."""
        flat = observations.reshape(len(observations), -1)  # of an image, the channels of the first pixel come first
        one_hot = flat[:, self.own : self.visible]
        return (one_hot.int() if isinstance(one_hot, Tensor) else one_hot).argmax(-1)


def names_of(space: gymnasium.Space | None) -> tuple[str, ...]:
    """Return the names of the groups of a space, in the order of the lanes; one empty name for other spaces."""
    return space.names if isinstance(space, GroupedBox) else ("",)


def joint_space(spaces: Sequence[gymnasium.Space], names: Sequence[str], hidden: int = 0) -> GroupedBox:
    """Return the space of the observations of all groups, padded to the longest last axis.

    The last ``hidden`` entries are for a centralized critic only.

    Raises:
        UserError: a space that is not a Box, or other axes or dtypes differ.
    """
    for name, space in zip(names, spaces, strict=True):
        if not isinstance(space, Box) or not space.shape or np.dtype(space.dtype).kind not in "bfu":
            raise UserError(f"observations of {name}: expected a Box of floats, bytes or booleans, got {short(space)}")
    forms = {(space.shape[:-1], _dtype(space)) for space in spaces if space.shape}
    if len(forms) > 1:
        raise UserError(f"observations: expected shapes that differ in the last axis only, and one dtype, got {forms}")
    ((shape, dtype),) = forms
    visible = max(space.shape[-1] for space in spaces if space.shape) + len(names)
    return GroupedBox((*shape, visible + hidden), dtype, names, visible)


def _dtype(space: gymnasium.Space) -> str:
    dtype = np.dtype(space.dtype)
    return "float32" if dtype.kind == "f" else str(dtype)  # Envs converts all floats to float32


def check_nothing_hidden(space: gymnasium.Space | None) -> None:
    """Check that a network may see all of an observation.

    Raises:
        UserError: some entries are for a centralized critic only.
    """
    if isinstance(space, GroupedBox) and space.visible < space.shape[-1]:
        raise UserError("central_critic: expected a2c, ppo or reinforce, whose policy and value function are separate")


def marked(observation: np.ndarray, group: int, space: GroupedBox) -> np.ndarray:
    """Pad an observation with zeros to the shape of ``space``, and set its one-hot vector to ``group``."""
    out = np.zeros(space.shape, space.dtype)
    out[..., : observation.shape[-1]] = observation
    out[..., space.own + group] = 255 if space.dtype == np.uint8 else 1
    return out
