"""The n-step windows of csrc/replay, computed in Python with :func:`automl_ext.n_step_returns`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from automl_ext.ops.returns import n_step_returns

# A transition without its observation and action; csrc/replay/windows.h reads the same bytes.
STEP = np.dtype(
    [("index", "i8"), ("reward", "f4"), ("final", "i4"), ("flags", "u1"), ("age", "u2"), ("start", "i4")], align=True
)
assert STEP.itemsize == 24
TERMINATED, TRUNCATED, CUT = 1, 2, 4  # flags; CUT: no continuation in the next slot


def n_step_windows(
    rows: np.ndarray, steps: np.ndarray, slots: int, n_step: int, gamma: float
) -> tuple[np.ndarray, ...]:
    """Compute the returns of windows that end after ``n_step`` steps or at the first step with a flag.

    Args:
        rows: int64 [N], first rows of the windows.
        steps: uint8 [rings * slots * 24], the bytes of STEPs, rings one after another.
        slots: slots per ring.
        n_step: largest number of steps of a window.
        gamma: discount factor.

    Returns:
        Returns, discounts (float32) and terminated (bool) [N], as :func:`automl_ext.n_step_returns` defines them; the
        row of the window's last step, int64 [N]; the first step's ``index``.
    """
    ring = steps.view(STEP)
    places = rows - rows % slots + (rows + np.arange(n_step)[:, None]) % slots  # [n_step, N]
    window = ring[places]
    terminated = (window["flags"] & TERMINATED) != 0
    truncated = (window["flags"] & (TRUNCATED | CUT)) != 0
    rewards = torch.from_numpy(np.ascontiguousarray(window["reward"]))
    ends = torch.from_numpy(terminated), torch.from_numpy(truncated)
    returns, discounts, last = (x[0].numpy() for x in n_step_returns(rewards, None, *ends, gamma, n_step))
    end = last, np.arange(len(rows))
    return returns, discounts, terminated[end], places[end], window["index"][0]


def held_rows(indices: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the rows, int64 [N], of the transitions with these indices; −1 where a transition is not stored."""
    ring = steps.view(STEP)
    rows = indices % len(ring)
    return np.where((indices >= 0) & (ring["index"][rows] == indices), rows, -1)


def gather_windows(
    rows: np.ndarray,
    steps: np.ndarray,
    slots: int,
    n_step: int,
    gamma: float,
    observations: Tensor,
    actions: Tensor,
    apart: Tensor,
) -> tuple[Tensor, ...]:
    """Compute :func:`n_step_windows` and gather the observations and actions.

    Args:
        rows, steps, slots, n_step, gamma: see :func:`n_step_windows`.
        observations, actions: one row per step.
        apart: the final observations that ``final`` refers to.

    Returns:
        Observations, actions, returns, next observations, discounts, terminated and indices of a batch.
    """
    returns, discounts, terminated, last, indices = n_step_windows(rows, steps, slots, n_step, gamma)
    finals = steps.view(STEP)["final"][last]
    next_observations = observations.numpy()[rows - rows % slots + (last + 1) % slots]
    next_observations[finals >= 0] = apart.numpy()[finals[finals >= 0]]
    arrays = (
        observations.numpy()[rows],
        actions.numpy()[rows],
        returns,
        next_observations,
        discounts,
        terminated,
        indices,
    )
    return tuple(torch.from_numpy(x) for x in arrays)
