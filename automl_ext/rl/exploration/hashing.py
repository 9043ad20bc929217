"""Hashes of observations: equal observations have equal hashes, others differ except with a probability of 2⁻⁶⁴."""

from __future__ import annotations

import math

import gymnasium
import numpy as np


class ObservationHash:
    """Maps observations to integers (Tang et al. 2017, https://arxiv.org/abs/1611.04717, but exact up to rounding).

    Args:
        space: space of the observations.
        seed: determines the hash function.
        digits: floats are rounded to this number of decimals.
    """

    def __init__(self, space: gymnasium.Space, seed: int = 0, digits: int = 1) -> None:
        size = math.prod(space.shape or ())
        self.factors = np.random.default_rng(seed).integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)
        self.digits = digits

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Hash observations [N, ...] to Σᵢ aᵢ xᵢ modulo 2⁶⁴ with random odd aᵢ, uint64 [N]."""
        x = observations.reshape(len(observations), -1)
        if x.dtype.kind == "f":
            with np.errstate(invalid="ignore"):  # numbers beyond 64 bits
                x = np.rint(x * 10.0**self.digits).astype(np.int64)
        return (x.astype(np.uint64) * self.factors).sum(axis=1)
