"""Augmentation of the batches of Q-learning: RAD (Laskin et al. 2020) and DrQ (Yarats et al. 2021).

RAD:    learn from f(s) and f(s′) instead of s and s′, where f is a random shift
DrQ:    y = 1/K Σ_k target(f_k(s′));  minimize 1/M Σ_m loss(Q(f_m(s), a) − y),  K = M = 2
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import torch
from torch import Tensor

from automl_ext.rl.augmentation.shift import RandomShift
from automl_ext.rl.replay.uniform import Batch

Augment = Literal["none", "rad", "drq"]
COPIES = {"rad": 1, "drq": 2}  # K = M, the number of shifts of each transition


class ShiftedBatch:
    """A :class:`~automl_ext.rl.loop.extensions.BatchTransform` that shifts observations and next observations.

    Args:
        shift: the augmentation.
        copies: number of copies of each transition, with different shifts: the result has all transitions once, then
            all of them again, and so on. With more than one, :func:`average_copies` of the targets makes it DrQ.
    """

    def __init__(self, shift: RandomShift, copies: int = 1) -> None:
        self.shift, self.copies = shift, copies

    def __call__(self, batch: Batch) -> Batch:
        n = self.copies
        return Batch(
            self.shift(repeated(batch.observations, n)),
            repeated(batch.actions, n),
            repeated(batch.returns, n),
            self.shift(repeated(batch.next_observations, n)),
            repeated(batch.discounts, n),
            repeated(batch.terminated, n),
            repeated(batch.weights, n),
            repeated(batch.indices, n),
        )

    def state_dict(self) -> dict[str, Any]:
        return self.shift.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shift.load_state_dict(state)


def repeated(x: Tensor, copies: int) -> Tensor:
    """Return ``copies`` copies of x [N, ...] after one another, [copies · N, ...]."""
    return x if copies == 1 else torch.cat([x] * copies)


def average_copies(targets: Tensor, copies: int) -> Tensor:
    """Replace every target by the mean over the copies of its transition (Yarats et al. 2021, eq. 2 and 3).

    Args:
        targets: [copies · N], or distributions [copies · N, atoms], in the order of :class:`ShiftedBatch`.
        copies: number of copies of each transition, K.
    """
    return repeated(targets.unflatten(0, (copies, -1)).mean(0), copies)


def make_augmentation(
    config: Any, space: gymnasium.Space, seed: int, device: str | torch.device
) -> ShiftedBatch | None:
    """Make the augmentation of the options ``augment`` and ``augment_shift`` of a configuration; "none": None.

    Raises:
        UserError: observations that are not images, or images not larger than the shift.
    """
    if config.augment == "none":
        return None
    shift = RandomShift("augment", space, config.augment_shift, seed, device)
    return ShiftedBatch(shift, COPIES[config.augment])
