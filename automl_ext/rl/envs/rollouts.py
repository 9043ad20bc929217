"""Rollouts of a policy in parallel environments, as tensors over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Step
from automl_ext.training.machine.device import send


class Rollout(NamedTuple):
    """T steps of B environments.

    Attributes:
        observations: [T·B + B + F, ...]: the observations before each action, the observations after the last step, and
            the final observations of the F truncated episodes. One forward pass then computes all values to bootstrap
            from, since within an episode V(s_{t+1}) of one step is V(s_t) of the next.
        actions: [T·B, ...], as sampled from the policy.
        rewards: [T, B].
        terminated, truncated, valid: bool [T, B].
        weights: float32 [T·B], equal weights with sum 1 for a mean over transitions; 0 where not ``valid``.
        log_probs, values: log π(a|s), [T·B], and V(s) of :attr:`observations`, if acting has computed them.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    weights: Tensor
    log_probs: Tensor | None = None
    values: Tensor | None = None

    @property
    def acted(self) -> Tensor:
        """The observations before each action, [T·B, ...]."""
        return self.observations[: len(self.actions)]

    def split_values(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Split the values of :attr:`observations` into V(s_t) and V'_t, the value of the true next observation.

        Where an episode terminated, V'_t is the value of an unrelated state, which the ops ignore.

        Args:
            values: [T·B + B + F].

        Returns:
            V(s_t) and V'_t, [T, B] each.
        """
        steps, n_envs = self.rewards.shape
        acted = (steps + 1) * n_envs
        by_time = values[:acted].view(steps + 1, n_envs)
        next_values = by_time[1:]
        if len(values) > acted:
            next_values = next_values.masked_scatter(self.truncated, values[acted:])
        return by_time[:-1], next_values


def to_rollout(taken: Sequence[Step], actions: Sequence[np.ndarray], device: torch.device) -> Rollout:
    """Stack consecutive steps and the sampled actions."""
    rewards, terminated, truncated, valid = (
        np.array([getattr(step, name) for step in taken]) for name in ("rewards", "terminated", "truncated", "valid")
    )
    observations = [step.observations for step in taken]
    # After the last step. Where an episode ended there, V' is ignored or taken from the final observations below.
    observations.append(taken[-1].next_observations)
    observations += [step.next_observations[step.truncated] for step in taken if step.truncated.any()]
    weights = (valid.ravel() / max(valid.sum(), 1)).astype(np.float32)
    arrays = np.concatenate(observations), np.concatenate(actions), rewards, terminated, truncated, valid, weights
    return Rollout(*send([torch.from_numpy(x) for x in arrays], device))
