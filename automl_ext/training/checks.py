"""Checks of numeric configuration values. A ValueError names the option, the value received and the value expected."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from automl_ext.training.files.reading import short

MOST_WORKERS = 256  # calls in flight that an option may set
LARGEST = 1e30  # products of larger floats overflow float32, the dtype of the networks


def check_range(
    config: Any,
    *names: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Check that the named fields are finite numbers within bounds, and floats within ±1e30.

    Args:
        config: a dataclass instance; a field that is None is skipped.
        names: fields to check.
        low, high: inclusive bounds.
        above, below: exclusive bounds.

    Raises:
        ValueError: a value is out of bounds; the message names the field, the bounds and the value.
    """
    bounds = {"at least": low, "above": above, "at most": high, "below": below}
    given = [f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None]
    expected = " and ".join(given) or "a finite number"
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        inside = (
            (isinstance(value, int) or math.isfinite(value))  # math.isfinite raises for ints above 1e308
            and (low is None or value >= low)
            and (above is None or value > above)
            and (high is None or value <= high)
            and (below is None or value < below)
        )
        if inside and isinstance(value, float) and abs(value) > LARGEST:
            raise ValueError(f"{name}: expected a number within ±{LARGEST:g}, got {value}")
        if not inside:
            raise ValueError(f"{name}: expected {expected}, got {short(value)}")


def check_seed(seed: int) -> None:
    """Check that a seed is an integer in [0, 2**32), which every generator here accepts."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected an int in [0, 2**32), got {short(seed)}")
