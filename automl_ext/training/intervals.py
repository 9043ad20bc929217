"""The 95 % interval of a mean over few values, such as seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

# 97.5 % quantiles of Student's t for 1 … 30 degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]
T += [2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]
Z = 1.959964  # that of the normal distribution


def t_quantile(count: int) -> float:
    """Return the 97.5 % quantile of Student's t for the mean of ``count`` values, at least 2."""
    freedom = count - 1
    if freedom <= len(T):
        return T[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)  # Fisher & Cornish 1960


def t_interval(values: Sequence[float]) -> list[float] | None:
    """Return the bounds of the 95 % interval of Student's t for the mean; None for fewer than 2 values."""
    if len(values) < 2:
        return None
    half = t_quantile(len(values)) * stdev(values) / sqrt(len(values))
    return [fmean(values) - half, fmean(values) + half]
