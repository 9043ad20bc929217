"""The start of worker processes."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any


def worker_context() -> Any:
    """Return the :mod:`multiprocessing` context of worker processes.

    A process forked from this one would copy locks that threads of PyTorch hold. On Linux, a server process without
    threads imports PyTorch once, and workers are forked from it. Elsewhere, each worker imports PyTorch.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    # The optimizers of PyTorch import the second module when the first one is made.
    context.set_forkserver_preload(["torch", "torch._dynamo"])
    return context
