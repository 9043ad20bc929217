"""Functions that make and fill the prioritized replay buffers of other packages.

Arguments: observations [capacity + 1, n], |δ| of all transitions [capacity], and of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Call = Callable[[], tuple[Any, Any]]


def tianshou(
    package: Any, observations: np.ndarray, td_errors: Tensor, new_errors: Tensor, alpha: float, beta: float
) -> Call:
    """Return a call for tianshou's buffer. Its batches have windows of one step."""
    capacity, batch_size = len(td_errors), len(new_errors)
    buffer = package.PrioritizedReplayBuffer(capacity, alpha=alpha, beta=beta)
    no = np.array(False)
    step = {"obs": observations[0], "act": np.int64(0), "rew": 1.0, "terminated": no, "truncated": no, "done": no}
    buffer.add(package.Batch(**step, obs_next=observations[1], info=package.Batch()))
    # Adding a million transitions one by one takes minutes: write directly where add() would write.
    buffer._meta.obs[:], buffer._meta.obs_next[:] = observations[:-1], observations[1:]
    buffer._size = capacity
    buffer.update_weight(np.arange(capacity), td_errors)

    def call() -> tuple[Any, Any]:
        batch, indices = buffer.sample(batch_size)
        buffer.update_weight(indices, new_errors)
        return batch.obs, batch.weight

    return call


def torchrl(
    package: Any, observations: np.ndarray, td_errors: Tensor, new_errors: Tensor, alpha: float, beta: float
) -> Call:
    """Return a call for torchrl's ReplayBuffer with a PrioritizedSampler.

    Raises:
        ImportError: torchrl's segment trees, which are C++, cannot be loaded.
    """
    try:
        import torchrl._torchrl  # noqa: F401
    except ImportError as error:  # torchrl itself only warns, and then lacks the trees
        raise ImportError(f"its C++ extension was built for another torch than {torch.__version__}") from error
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, ReplayBuffer
    from torchrl.data.replay_buffers.samplers import PrioritizedSampler

    capacity, batch_size = len(td_errors), len(new_errors)
    sampler = PrioritizedSampler(capacity, alpha, beta, eps=float(np.finfo(np.float32).eps))
    buffer = ReplayBuffer(storage=LazyTensorStorage(capacity), sampler=sampler, batch_size=batch_size)
    rows = torch.from_numpy(observations)
    fields = {
        "obs": rows[:-1],
        "obs_next": rows[1:],
        "action": torch.zeros(capacity, dtype=torch.int64),
        "reward": torch.ones(capacity),
        "terminated": torch.zeros(capacity, dtype=torch.bool),
    }
    buffer.extend(TensorDict(fields, [capacity]))
    buffer.update_priority(torch.arange(capacity), td_errors)

    def call() -> tuple[Any, Any]:
        batch, info = buffer.sample(return_info=True)
        buffer.update_priority(info["index"], new_errors)
        return batch["obs"], info["priority_weight"]

    return call
