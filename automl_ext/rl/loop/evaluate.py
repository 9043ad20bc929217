"""Evaluation of a policy: the returns of whole episodes in separate environments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from automl_ext.rl.envs.groups import names_of
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.train_config import MAX_STEPS, TrainConfig, envs_of
from automl_ext.training.seeding import derived_seed

Act = Callable[[np.ndarray], np.ndarray]
Begin = Callable[[np.ndarray], None]


class EpisodeReturns(NamedTuple):
    """Returns of the first episode of every environment.

    Attributes:
        returns: float64 [B], undiscounted.
        cut: number of episodes that were truncated at ``max_steps``. Their returns count rewards up to this step.
    """

    returns: np.ndarray
    cut: int


def play(
    act: Act, envs: Envs, begin: Begin | None = None, max_steps: int = MAX_STEPS, number: int | None = None
) -> EpisodeReturns:
    """Play one episode in every environment.

    Each environment plays one episode only: playing as many as fit into a given number of steps would count short
    episodes more often than long ones.

    Args:
        act: maps observations [B, ...] to actions [B, ...].
        envs: new environments; they are closed afterwards.
        begin: called before ``act`` with bool [B], True where an episode starts; recurrent policies reset there.
        max_steps: longer episodes are truncated, so that an endless episode does not block.
        number: B: only the first B environments are evaluated; None: all.
    """
    returns = np.zeros(envs.n_envs)
    running = np.arange(envs.n_envs) < (envs.n_envs if number is None else number)
    try:
        for _ in range(max_steps):
            if begin is not None:
                begin(envs.starting)
            envs.step(act(envs.observations))
            for episode in envs.episodes:  # these returns are not clipped
                if running[episode.env]:
                    returns[episode.env], running[episode.env] = episode.episode_return, False
            envs.episodes.clear()
            if not running.any():
                break
        returns[running] = envs.running_returns[running]
    finally:
        envs.close()
    return EpisodeReturns(returns[:number], int(running.sum()))


def by_group(returns: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return the mean return of each agent or task by ``eval_return/NAME``; an empty dict if there is only one.

    Args:
        returns: [B], of environments whose groups alternate: environment i has the group i modulo the number of groups.
        names: names of the groups.
    """
    if len(names) == 1:
        return {}
    return {f"eval_return/{name}": float(returns[i :: len(names)].mean()) for i, name in enumerate(names)}


def evaluate(act: Act, envs: Envs, begin: Begin | None = None, max_steps: int = MAX_STEPS) -> np.ndarray:
    """Return the returns of :func:`play`, float64 [B]. A warning reports the number of truncated episodes.

    Args: see :func:`play`.
    """
    played = play(act, envs, begin, max_steps)
    warn_of_cut(played, max_steps)
    return played.returns


def warn_of_cut(played: EpisodeReturns, max_steps: int) -> None:
    """Warn if episodes were truncated at ``max_steps``."""
    if played.cut:
        warnings.warn(f"{played.cut} of {len(played.returns)} episodes were cut after {max_steps} steps", stacklevel=3)


def play_policy(agent: Any, config: TrainConfig, episodes: int, seed: int) -> tuple[EpisodeReturns, tuple[str, ...]]:
    """Play ``episodes`` episodes of the agent's policy; ``seed`` determines them. Return also the names of the groups.

    They are played in new environments: those of ``config.env_id``, or copies of the environments that were passed to
    the agent. If it is not known how to make copies, they are played in the training environments, whose running
    episodes are aborted.

    Raises:
        UserError: the environment does not exist, or has other spaces than the agent.
        EnvError: the environments' own code failed.
    """
    own = agent.given
    envs = envs_of(config, episodes, seed) if own is None else own.others(episodes, seed)
    act, begin, limit = agent.evaluation_actions, agent.begin, config.eval_max_steps
    if envs is not None:
        agent.check_spaces(envs)
        return play(act, envs, begin, limit), names_of(envs.observation_space)
    assert own is not None
    warnings.warn(
        f"evaluation: {own.vector} cannot be made again: policies are evaluated in the training environments, and end "
        "their running episodes; for evaluations in others, pass an id or a callable that makes an environment",
        stacklevel=2,
    )
    returns, cut = np.zeros(0), 0
    while len(returns) < episodes:
        number = min(episodes - len(returns), own.n_envs)
        played = play(act, own.lent(derived_seed(seed, len(returns))), begin, limit, number)
        returns, cut = np.append(returns, played.returns), cut + played.cut
    agent.restart()
    return EpisodeReturns(returns, cut), names_of(own.observation_space)
