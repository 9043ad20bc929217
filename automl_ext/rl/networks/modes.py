"""A context in which some modules are in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules in evaluation mode within a ``with`` block, and back in training mode those that were in it.

    The list is the caller's, because going through all modules of a network takes longer than a small network.
    """
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
