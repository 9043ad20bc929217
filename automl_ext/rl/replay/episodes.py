"""Whole episodes as arrays, as Minari yields them: their checks, and a replay that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from automl_ext.rl.envs.packed import float32_array
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.replay.uniform import UniformReplay
from automl_ext.training.files.reading import short


class RecordedEpisode(NamedTuple):
    """An episode of T steps, with the names and shapes of Minari's ``EpisodeData``.

    Attributes:
        observations: [T + 1, ...]; the last one is the final observation.
        actions: [T, ...], as the environment takes them.
        rewards: [T].
        terminations, truncations: bool [T].
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


def as_recorded(episodes: Iterable[Any]) -> list[RecordedEpisode]:
    """Convert episodes to arrays.

    Args:
        episodes: objects or dicts with the fields of :class:`RecordedEpisode`, such as Minari's. Observations of any
            float dtype become float32, rewards float32.

    Raises:
        ValueError: a field is missing, its length does not match, observations, actions or rewards are not finite
            numbers, or there are no steps.
    """
    if isinstance(episodes, Mapping):
        raise ValueError("episodes: expected several episodes, such as a list of dicts, got one dict")
    found = []
    for i, episode in enumerate(episodes):
        arrays = RecordedEpisode(*(np.asarray(_get(episode, name, i)) for name in RecordedEpisode._fields))
        for name, x in arrays._asdict().items():
            if not x.ndim or (x.ndim > 1 and name not in ("observations", "actions")):
                raise ValueError(f"episode {i}: {name}: expected an entry per step, got shape {list(x.shape)}")
        steps = len(arrays.actions)
        for name, x in arrays._asdict().items():
            expected = steps + (name == "observations")
            if len(x) != expected:
                raise ValueError(f"episode {i}: {name}: expected length {expected}, got {len(x)}")
        for name in ("observations", "actions", "rewards"):
            x = getattr(arrays, name)
            if x.dtype.kind not in "biuf" or not np.isfinite(x).all():
                raise ValueError(f"episode {i}: {name}: expected finite numbers, got {short(x.tolist())}")
        observations, rewards = float32_array(arrays.observations), arrays.rewards.astype(np.float32)
        found.append(arrays._replace(observations=observations, rewards=rewards))
    if not sum(len(episode.actions) for episode in found):
        raise ValueError("episodes: expected at least one step")
    return found


def fill(replay: UniformReplay, episodes: Iterable[RecordedEpisode]) -> None:
    """Add all steps of episodes to a replay of one environment.

    A last step that is neither terminated nor truncated counts as truncated.

    Raises:
        ValueError, TypeError: see :meth:`UniformReplay.add`.
    """
    valid = np.array([True])
    for episode in episodes:
        last = len(episode.actions) - 1
        for t in range(last + 1):
            terminated = bool(episode.terminations[t])
            truncated = bool(episode.truncations[t]) or (t == last and not terminated)
            step = Step(
                episode.observations[t : t + 1],
                episode.actions[t : t + 1],
                episode.rewards[t : t + 1],
                episode.observations[t + 1 : t + 2],
                terminated=np.array([terminated]),
                truncated=np.array([truncated]),
                valid=valid,
            )
            replay.add(step)


def _get(episode: Any, name: str, i: int) -> Any:
    try:
        return episode[name] if isinstance(episode, Mapping) else getattr(episode, name)
    except (KeyError, AttributeError):
        expected = ", ".join(RecordedEpisode._fields)
        raise ValueError(f"episode {i}: expected an object or a dict with {expected}; {name} is missing") from None
