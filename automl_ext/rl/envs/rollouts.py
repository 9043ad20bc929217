"""What a policy did in parallel environments, as tensors over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Envs, Step

Sample = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Rollout(NamedTuple):
    """T steps of B environments.

    Attributes:
        observations: [T·B + B + F, ...]: those acted on, those after the last step, and the final ones of the F
            truncated episodes. One forward pass has every value there is to bootstrap from: within an episode
            V(s_{t+1}) of one step is V(s_t) of the next.
        actions: [T·B, ...], as the policy drew them.
        rewards: [T, B].
        terminated, truncated, valid: bool [T, B].
        weights: float32 [T·B], to average over the transitions with: alike, sum 1, but 0 where not ``valid``.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    weights: Tensor

    def split_values(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values of :attr:`observations` to V(s_t) and V'_t, that of the true next observation, [T, B] each.

        Where an episode terminated, V' is some other state's value: the ops do not read it.
        """
        steps, n_envs = self.rewards.shape
        acted = (steps + 1) * n_envs
        by_time = values[:acted].view(steps + 1, n_envs)
        next_values = by_time[1:]
        if len(values) > acted:
            next_values = next_values.masked_scatter(self.truncated, values[acted:])
        return by_time[:-1], next_values


def collect(envs: Envs, sample: Sample, steps: int, device: torch.device) -> Rollout:
    """Act ``steps`` times in every environment.

    Args:
        sample: observations to actions, as the policy draws them and as the environment wants them.
    """
    taken, actions = [], []
    for _ in range(steps):
        drawn, for_env = sample(envs.observations)
        taken.append(envs.step(for_env))
        actions.append(drawn)
    return to_rollout(taken, actions, device)


def to_rollout(taken: Sequence[Step], actions: Sequence[np.ndarray], device: torch.device) -> Rollout:
    """Steps that followed one another, with the actions as drawn."""
    rewards, terminated, truncated, valid = (
        np.array([getattr(step, name) for step in taken]) for name in ("rewards", "terminated", "truncated", "valid")
    )
    observations = [step.observations for step in taken]
    # After the last step; where the episode ended then, V' is either not read or of the final observation below.
    observations.append(taken[-1].next_observations)
    observations += [step.next_observations[step.truncated] for step in taken if step.truncated.any()]
    weights = (valid.ravel() / max(valid.sum(), 1)).astype(np.float32)
    arrays = np.concatenate(observations), np.concatenate(actions), rewards, terminated, truncated, valid, weights
    return Rollout(*(torch.from_numpy(x).to(device) for x in arrays))
