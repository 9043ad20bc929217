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


def end_server() -> None:
    """End the server from which workers are forked, if there is one, so that the next worker starts another one.

    Call it after an error of the connection to it. A server that was killed takes a while to end; until then, every
    start of a worker would fail.
    """
    from multiprocessing import forkserver  # not on Windows

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
