"""Forward hooks that are removed at the end of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_hooks(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Call ``hook(module, arguments, output)`` after each forward pass of a module inside the block.

    Args:
        modules: the modules.
        hook: what it returns replaces the output, unless it is None.
    """
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
