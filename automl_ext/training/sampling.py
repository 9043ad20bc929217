"""Minibatches in random order that go on exactly where they were interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Batches:
    """Index tensors over a fresh permutation of ``n`` per epoch; ``for index in batches`` is one epoch.

    torch's samplers hold their permutation in a local variable, so they can be resumed at the border of an
    epoch only; this one also within. ``generator`` must be its own: other draws from it during an epoch would
    be repeated after a resume. An epoch that was left early, by ``break`` or a checkpoint, goes on in the
    next loop; after its last batch the next loop is a new epoch.

    Raises:
        ValueError: ``batch_size < 1``, or no batch at all.
    """

    def __init__(self, n: int, batch_size: int, generator: torch.Generator, *, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if n < (batch_size if drop_last else 1):
            raise ValueError(f"n: {n} items give no batch (batch_size={batch_size}, drop_last={drop_last})")
        self.n, self.batch_size, self.drop_last = n, batch_size, drop_last
        self._generator = generator
        self._epoch_start = generator.get_state()
        self._drawn = 0  # batches handed out in this epoch

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """The epoch, or what is left of it: int64 ``[batch_size]`` on the CPU; the last may be shorter."""
        if self._drawn in (0, len(self)):
            self._epoch_start, self._drawn = self._generator.get_state(), 0
        self._generator.set_state(self._epoch_start)
        order = torch.randperm(self.n, generator=self._generator, device=self._generator.device).cpu()
        while self._drawn < len(self):
            start = self._drawn * self.batch_size
            self._drawn += 1
            yield order[start : start + self.batch_size]

    def state_dict(self) -> dict[str, Any]:
        """The generator's state at the start of the epoch, and how many batches it has handed out since."""
        if self._drawn in (0, len(self)):
            return {"epoch_start": self._generator.get_state(), "drawn": 0}
        return {"epoch_start": self._epoch_start, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch_start, self._drawn = state["epoch_start"], state["drawn"]
        self._generator.set_state(self._epoch_start)
