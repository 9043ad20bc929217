"""Search spaces in Optuna's form, and points that fit them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from automl_ext.training.search_space import Range, Space, Values

Distributions = dict[str, BaseDistribution]
DIGITS = 4  # significant ones of a value to try


def distributions(space: Space) -> Distributions:
    """Return Optuna's distribution of every name."""
    return {name: _distribution(values) for name, values in space.items()}


def _distribution(values: Values) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def nearest(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point of the space that is nearest to ``point``, which has a value for every name.

    A value of the wrong type, or one that is not a category, becomes the lowest number or the first category.
    """
    return {name: _nearest(values, point[name]) for name, values in space.items()}


def _nearest(values: Values, value: Any) -> Any:
    if not isinstance(values, Range):
        same = [v for v in values.values if type(v) is type(value) and v == value]
        return same[0] if same else values.values[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return values.low
    inside = min(max(value, values.low), values.high)
    return round(inside) if values.whole else float(inside)


def rounded(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point with floats rounded to ``DIGITS`` significant digits, within the ranges, for output."""
    found = dict(point)
    for name, values in space.items():
        if isinstance(values, Range) and isinstance(point[name], float):
            found[name] = min(max(float(f"{point[name]:.{DIGITS}g}"), values.low), values.high)
    return found


def described(space: Space) -> dict[str, Any]:
    """Return a space as plain values, for files."""
    return {
        name: {"low": values.low, "high": values.high, "log": values.log}
        if isinstance(values, Range)
        else {"values": list(values.values)}
        for name, values in space.items()
    }
