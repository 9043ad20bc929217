"""How good a policy is: the returns of whole episodes in environments of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from automl_ext.rl.envs.vector import Envs

Act = Callable[[np.ndarray], np.ndarray]
Begin = Callable[[np.ndarray], None]
MAX_STEPS = 27_000  # of an episode in evaluation, unless told otherwise: half an hour of an Atari game


class EpisodeReturns(NamedTuple):
    """The first episode of every environment.

    Attributes:
        returns: float64 [B], undiscounted.
        cut: the number of episodes that were stopped at ``max_steps``; their returns are of the steps until then.
    """

    returns: np.ndarray
    cut: int


def play(act: Act, envs: Envs, begin: Begin | None = None, max_steps: int = MAX_STEPS) -> EpisodeReturns:
    """Play one episode in every environment: one each, so that short ones are not counted more often than long ones.

    Args:
        act: observations [B, ...] to actions [B, ...].
        envs: fresh ones; they are closed afterwards.
        begin: for a policy with memory: called before ``act`` with where episodes begin, bool [B].
        max_steps: longer episodes are cut, so that an environment without an end does not play forever.
    """
    returns = np.zeros(envs.n_envs)
    running = np.ones(envs.n_envs, bool)
    try:
        for _ in range(max_steps):
            if begin is not None:
                begin(envs.starting)
            envs.step(act(envs.observations))
            for episode in envs.episodes:  # their returns are as the environment pays them, not clipped
                if running[episode.env]:
                    returns[episode.env], running[episode.env] = episode.episode_return, False
            envs.episodes.clear()
            if not running.any():
                break
        returns[running] = envs.running_returns[running]
    finally:
        envs.close()
    return EpisodeReturns(returns, int(running.sum()))


def evaluate(act: Act, envs: Envs, begin: Begin | None = None, max_steps: int = MAX_STEPS) -> np.ndarray:
    """The returns of :func:`play`, float64 [B]; a warning says how many episodes were cut."""
    returns, cut = play(act, envs, begin, max_steps)
    if cut:
        warnings.warn(f"{cut} of {len(returns)} episodes were cut after {max_steps} steps", stacklevel=2)
    return returns
