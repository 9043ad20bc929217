"""A warning for targets of distributional Q-learning (C51) that are outside the range of the atoms."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

EVERY = 10  # calls between checks; a check synchronizes with the device
TOLERANCE = 0.01  # relative to the support's width; tolerates rounding, and values just outside the support


class SupportCheck:
    """Warn once when targets leave [v_min, v_max]. The projection clips such targets to the support.

    Args:
        v_min, v_max: the support, the range of the atoms.
    """

    def __init__(self, v_min: float, v_max: float) -> None:
        self.v_min, self.v_max = v_min, v_max
        self.calls, self.warned = 0, False
        self.smallest: Tensor | None = None
        self.largest: Tensor | None = None

    def check(self, targets: Tensor) -> None:
        """Record the expected returns [N] of a batch of targets, before their projection; warn if they are outside."""
        if self.warned:
            return
        smallest, largest = targets.aminmax()
        self.smallest = smallest if self.smallest is None else torch.minimum(smallest, self.smallest)
        self.largest = largest if self.largest is None else torch.maximum(largest, self.largest)
        if self.calls % EVERY == 0:
            self._warn_if_outside(float(self.smallest), float(self.largest))
        self.calls += 1

    def _warn_if_outside(self, smallest: float, largest: float) -> None:
        slack = TOLERANCE * (self.v_max - self.v_min)
        if smallest < self.v_min - slack or largest > self.v_max + slack:
            self.warned = True
            warnings.warn(
                f"distributional: expected returns in [{smallest:.4g}, {largest:.4g}] leave the support "
                f"[v_min, v_max] = [{self.v_min:g}, {self.v_max:g}] and are clipped to it; set --v-min and --v-max to "
                "the range of discounted returns",
                stacklevel=4,
            )
