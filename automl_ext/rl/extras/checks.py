"""Checks of extras: of their options, and of the agents to which they attach."""

from __future__ import annotations

from typing import Any

from automl_ext.training.checks import check_range


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
