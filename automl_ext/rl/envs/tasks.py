"""Several tasks in one vector environment: every observation names its task.

All tasks have the same action space. Observations are padded to one shape and end with a one-hot vector of the task:
see :class:`automl_ext.rl.envs.groups.GroupedBox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from automl_ext.rl.envs.groups import GroupedBox, joint_space, marked
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

SEPARATOR = ","  # between the ids of the tasks


def tasks_of(env_id: str) -> list[str]:
    """Split ``A,B,C`` into the ids of the tasks.

    Raises:
        UserError: an id is empty.
    """
    names = [name.strip() for name in env_id.split(SEPARATOR)]
    if len(names) > 1 and not all(names):
        raise UserError(f"env_id: expected ids separated by commas, got {short(env_id)}")
    return names


class TaskObservation(gymnasium.ObservationWrapper):
    """Pad the observations of one of several tasks and append the task's one-hot vector. It has no state."""

    def __init__(self, env: gymnasium.Env, task: int, space: GroupedBox) -> None:
        super().__init__(env)
        self.task, self.space = task, space
        self.observation_space = space

    def observation(self, observation: Any) -> np.ndarray:
        return marked(np.asarray(observation), self.task, self.space)


def space_of_tasks(names: Sequence[str], envs: Sequence[gymnasium.Env]) -> GroupedBox:
    """Return the common observation space of the tasks; ``envs`` has one environment of each.

    Raises:
        UserError: a task occurs twice, the action spaces differ, or the observations cannot be padded to one shape.
    """
    if len(set(names)) < len(names):
        raise UserError(f"expected different tasks, got {', '.join(names)}")
    for name, env in zip(names, envs, strict=True):
        if env.action_space != envs[0].action_space:
            raise UserError(
                f"expected tasks with one action space, got {short(envs[0].action_space)} in {names[0]} and "
                f"{short(env.action_space)} in {name}"
            )
    return joint_space([env.observation_space for env in envs], names)
