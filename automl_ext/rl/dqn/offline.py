"""Offline Q-learning, from a saved replay or from episodes in Minari's format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from automl_ext.rl.dqn.agent import make_replay
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.learner import QLearner
from automl_ext.rl.replay.episodes import as_recorded, fill
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.rl.replay.uniform import UniformReplay
from automl_ext.training.seeding import derived_seed


def replay_of_episodes(config: DQNConfig, episodes: Iterable[Any]) -> UniformReplay:
    """Build a replay that holds all episodes.

    Args:
        config: settings of the replay.
        episodes: objects or dicts with the arrays observations [T + 1, ...], actions [T], rewards [T], terminations [T]
            and truncations [T], as in a Minari data set. A last step that is neither terminated nor truncated counts
            as truncated.

    Raises:
        ValueError: there are no steps, the lengths of the arrays do not match, or rewards or observations are not
            finite.
    """
    found = as_recorded(episodes)
    first = found[0].observations
    total = sum(len(episode.actions) for episode in found)
    replay = make_replay(config, space_of(first.shape[1:], first.dtype), 1, config.seed, capacity=total)
    fill(replay, (episode._replace(actions=episode.actions.astype(np.int64)) for episode in found))
    return replay


def saved_replay(config: DQNConfig, state: dict[str, Any]) -> UniformReplay:
    """Restore a replay from ``replay.state_dict()``, such as ``state["agent"]["replay"]`` of a checkpoint.

    Raises:
        ValueError: ``config.prioritized`` does not match the saved replay.
    """
    if ("priorities" in state) != config.prioritized:
        raise ValueError(f"prioritized: expected {not config.prioritized} for this replay, got {config.prioritized}")
    ring = state["ring"]
    n_envs, _, *shape = ring["observations"].shape
    space = space_of(tuple(shape), ring["observations"].numpy().dtype)
    replay = make_replay(config, space, n_envs, config.seed, capacity=(ring["slots"] - 1) * n_envs)
    replay.load_state_dict(state)
    return replay


def train_offline(config: DQNConfig, replay: UniformReplay, actions: int, updates: int) -> QLearner:
    """Take ``updates`` gradient steps on the transitions that a replay holds.

    Args:
        config: settings of network, optimizer and targets; options of environments are ignored. The target network is
            updated every ``target_update_interval`` gradient steps.
        replay: the transitions. The beta of a prioritized replay rises to 1 over these updates.
        actions: number of actions, which are 0 … actions − 1.
        updates: number of gradient steps.

    Returns:
        The learner; ``learner.best_actions(observations)`` is its policy.

    Raises:
        ValueError: ``actions`` or ``updates`` below 1.
    """
    for name, value in (("actions", actions), ("updates", updates)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    sample = replay.sample(1).observations
    space = space_of(tuple(sample.shape[1:]), sample.cpu().numpy().dtype)
    learner = QLearner(config, space, actions, (derived_seed(config.seed, 0), derived_seed(config.seed, 1)))
    if config.normalize:
        learner.update_statistics(replay.sample(10_000).observations)
    if isinstance(replay, PrioritizedReplay):
        replay.restart_beta(updates)  # the replay was built with the schedule of a run with environments
    while learner.updates < updates:
        learner.sync_target()
        learner.schedule(learner.updates / updates)
        learner.update(replay, min(config.target_update_interval, updates - learner.updates))
    learner.online.eval()
    return learner


def space_of(shape: tuple[int, ...], dtype: Any) -> Box:
    """Build a space that contains every observation of this shape and dtype."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return Box(-np.inf, np.inf, shape, kind)
    low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return Box(low, high, shape, kind)
