"""Means of measurements between two evaluations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Averages:
    """Means of measurements since the last :meth:`take`. Tensors stay on their device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def add(self, measured: dict[str, Any]) -> None:
        for name, value in measured.items():
            value = value.detach().double() if isinstance(value, Tensor) else float(value)
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def load(self, sums: Any, counts: Any) -> None:
        """Restore both dicts of a checkpoint.

        Raises:
            ValueError: they are not dicts of numbers with the same keys.
        """
        if type(sums) is not dict or type(counts) is not dict or sums.keys() != counts.keys():
            raise ValueError("sums, counts: expected two dicts with the same keys")
        for name, total in sums.items():
            is_number = total.ndim == 0 if isinstance(total, Tensor) else type(total) is float
            if not is_number or type(counts[name]) is not int:
                raise ValueError(f"sums, counts: expected numbers, got {total} and {counts[name]} of {name}")
        self.sums, self.counts = sums, counts

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def take(self) -> dict[str, float]:
        means = self.means()
        self.sums, self.counts = {}, {}
        return means


def mean_metrics(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each metric over several gradient steps. Tensors may have any shape."""
    return {
        name: torch.stack([x[name] for x in measured]).mean(0)
        if isinstance(value, Tensor)
        else sum(x[name] for x in measured) / len(measured)
        for name, value in measured[0].items()
    }
