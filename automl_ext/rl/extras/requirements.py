"""Checks of the options of extras, and of the agents to which extras are attached."""

from __future__ import annotations

from typing import Any

from automl_ext.rl.envs.packed import check_not_packed
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError


def check_options(extra: Any, *names: str, low: float, high: float | None = None) -> None:
    """Check that options of an extra are at least ``low``, and at most ``high``.

    Raises:
        ValueError: names the extra, the option, the bound and the value.
    """
    try:
        check_range(extra, *names, low=low, high=high)
    except ValueError as error:
        raise ValueError(f"{extra.name}.{error}") from None


def has_replay(agent: Any) -> bool:
    """Return whether an agent learns from batches of a replay, as DQN does, and not from its own rollouts."""
    return "batch" in agent.honors


def image_shape(agent: Any, name: str) -> tuple[int, ...]:
    """Return the shape of an agent's observations, which are images or stacks of images.

    Raises:
        UserError: they are not; the message begins with ``name``, the name of the extra.
    """
    space = agent.spaces[0]
    check_not_packed(space, name)
    shape: tuple[int, ...] = space.shape
    if len(shape) not in (3, 4):
        raise UserError(f"{name}: expected images, [H, W, channels] or [channels, H, W], got shape {list(shape)}")
    return shape
