"""The n-step windows of csrc/replay through :func:`automl_ext.n_step_returns`, for when there is no library."""

from __future__ import annotations

import numpy as np
import torch

from automl_ext.ops.returns import n_step_returns

TERMINATED, TRUNCATED, CUT = 1, 2, 4  # CUT: the next slot does not go on from here, as at a ring's newest step


def n_step_windows(
    rows: np.ndarray,
    rewards: np.ndarray,
    flags: np.ndarray,
    finals: np.ndarray,
    slots: int,
    n_step: int,
    gamma: float,
) -> tuple[np.ndarray, ...]:
    """Returns over at most ``n_step`` steps that start at ``rows`` and end at the first step with a flag.

    Args:
        rows: int64 [N], where windows start.
        rewards, flags, finals: float32, uint8, int32 [rings * slots], rings one after another.

    Returns:
        returns, discounts (float32) and terminated (bool) [N], as :func:`automl_ext.n_step_returns` has them; the
        row after the window's last step, int64 [N]; that step's ``finals``, int64 [N].
    """
    steps = rows - rows % slots + (rows + np.arange(n_step)[:, None]) % slots  # [n_step, N]
    window = torch.from_numpy(flags[steps])
    terminated, truncated = (window & TERMINATED) != 0, (window & (TRUNCATED | CUT)) != 0
    out = n_step_returns(torch.from_numpy(rewards[steps]), None, terminated, truncated, gamma, n_step)
    returns, discounts, last = (x[0].numpy() for x in out)
    final_rows = steps[last, np.arange(len(rows))]
    next_rows = final_rows - final_rows % slots + (final_rows + 1) % slots
    return returns, discounts, (flags[final_rows] & TERMINATED) != 0, next_rows, finals[final_rows].astype(np.int64)
