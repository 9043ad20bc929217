"""Joint steps of the agents of a team, from the steps of their lanes (:mod:`automl_ext.rl.envs.lanes`)."""

from __future__ import annotations

import numpy as np

from automl_ext.rl.envs.vector import Step
from automl_ext.training.errors import UserError


def team_step(step: Step, agents: int) -> Step:
    """Convert a step of the lanes, [C · A, ...], to a step of the copies: [C, A, ...], with the mean of the rewards.

    Raises:
        UserError: the agents of a copy do not end their episode together.
    """
    terminated, truncated = (x.reshape(-1, agents) for x in (step.terminated, step.truncated))
    if (terminated != terminated[:, :1]).any() or (truncated != truncated[:, :1]).any():
        raise UserError("team: expected an environment whose agents all end in the same step")
    observations, actions, next_observations = (
        x.reshape(-1, agents, *x.shape[1:]) for x in (step.observations, step.actions, step.next_observations)
    )
    rewards = step.rewards.reshape(-1, agents).mean(1)
    ends = terminated[:, 0], truncated[:, 0]
    return Step(observations, actions, rewards, next_observations, *ends, np.ones(len(rewards), bool))
