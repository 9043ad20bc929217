"""How good a policy is: the returns of whole episodes in environments of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from automl_ext.rl.envs import Envs

Act = Callable[[np.ndarray], np.ndarray]
Begin = Callable[[np.ndarray], None]


def evaluate(act: Act, envs: Envs, begin: Begin | None = None) -> np.ndarray:
    """Returns of the first episode of every environment, float64 [B].

    One episode each, so that short ones are not counted more often than long ones.

    Args:
        act: observations [B, ...] to actions [B, ...].
        envs: fresh ones; they are closed afterwards.
        begin: of a policy that remembers: called before ``act`` with where episodes begin, bool [B].
    """
    returns = np.zeros(envs.n_envs)
    running = np.ones(envs.n_envs, bool)
    try:
        while running.any():
            if begin is not None:
                begin(envs.starting)
            envs.step(act(envs.observations))
            for episode in envs.episodes:  # their returns are as the environment pays them, not clipped
                if running[episode.env]:
                    returns[episode.env], running[episode.env] = episode.episode_return, False
            envs.episodes.clear()
    finally:
        envs.close()
    return returns
