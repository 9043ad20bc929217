"""A warning where returns leave the range of C51's atoms."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

EVERY = 10  # calls between checks: a check waits for the device
TOLERANCE = 0.01  # of the support's width: rounding, and values next to the end


class SupportCheck:
    """Warn once when targets leave [v_min, v_max], where the projection moves them to the nearest end.

    Args:
        v_min, v_max: the support.
    """

    def __init__(self, v_min: float, v_max: float) -> None:
        self.v_min, self.v_max = v_min, v_max
        self.calls, self.warned = 0, False
        self.smallest: Tensor | None = None
        self.largest: Tensor | None = None

    def saw(self, targets: Tensor) -> None:
        """Take in expected returns [N], before they are projected."""
        if self.warned:
            return
        smallest, largest = targets.aminmax()
        self.smallest = smallest if self.smallest is None else torch.minimum(smallest, self.smallest)
        self.largest = largest if self.largest is None else torch.maximum(largest, self.largest)
        if self.calls % EVERY == 0:
            self._check(float(self.smallest), float(self.largest))
        self.calls += 1

    def _check(self, smallest: float, largest: float) -> None:
        slack = TOLERANCE * (self.v_max - self.v_min)
        if smallest < self.v_min - slack or largest > self.v_max + slack:
            self.warned = True
            warnings.warn(
                f"distributional: expected returns between {smallest:.4g} and {largest:.4g} leave the support "
                f"[v_min, v_max] = [{self.v_min:g}, {self.v_max:g}] and are cut off there; set --v-min and --v-max to "
                "the range of discounted returns",
                stacklevel=4,
            )
