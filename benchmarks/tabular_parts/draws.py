"""Points drawn at random from a table of evaluated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence


def expected_best(losses: Sequence[float], trials: int) -> float:
    """Return the expected lowest loss of ``trials`` different points, drawn at random from all.

    The i-th lowest of n losses is the lowest of the drawn ones with probability C(n − i, trials − 1)/C(n, trials).
    """
    n, total = len(losses), math.comb(len(losses), trials)
    return sum(math.comb(n - i, trials - 1) / total * loss for i, loss in enumerate(sorted(losses), 1))
