"""The choice of where calls run, and the resources of a call.

    with Cluster("ray", cpus=2):       # or: automl-ext … --cluster ray --cpus-per-trial 2
        search(…)                      # its jobs run on Ray

Without a cluster, calls run in this process or in processes on this machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch

from automl_ext.parallel.backend import Backend, InProcess
from automl_ext.parallel.processes import Processes
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

_entered: list[Cluster] = []  # the last one is in effect


class Cluster:
    """The backend on which calls run inside the ``with`` block, and the resources of each call.

    Args:
        address: None: this machine. "ray": the running Ray cluster that this machine or RAY_ADDRESS belongs to, else a
            new one on this machine. "ray://HOST:PORT": the Ray cluster with this client address.
        cpus: number of threads of PyTorch in each call, and of CPUs that Ray reserves for it. None: the number of
            threads of this process divided by the number of calls in flight, and one CPU. The number of threads may
            change the last bits of a result. ``cpus`` therefore also sets the number of threads of this process, which
            must be the same when a run is resumed.
        gpus: number of GPUs that Ray reserves for each call, or a fraction below 1. It needs ``address``.

    Raises:
        UserError: a value is invalid.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None, gpus: float | None = None) -> None:
        if address is not None and not re.fullmatch(r"ray|ray://[^\s/:]+:\d+", address):
            raise UserError(f"--cluster: expected ray or ray://HOST:PORT, got {short(address)}")
        if cpus is not None and not 1 <= cpus <= 4096:
            raise UserError(f"--cpus-per-trial: expected at least 1 and at most 4096, got {short(cpus)}")
        if gpus is not None and not (0 < gpus <= 4096 and (gpus < 1 or math.floor(gpus) == gpus)):
            raise UserError(f"--gpus-per-trial: expected a whole number or a fraction below 1, got {short(gpus)}")
        if gpus is not None and address is None:
            raise UserError("--gpus-per-trial needs --cluster ray, which places the trials on GPUs")
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self.disconnect: Callable[[], None] = lambda: None

    def threads(self, count: int) -> int:
        """Return the number of threads of each of ``count`` calls in flight."""
        return self.cpus or max(torch.get_num_threads() // count, 1)

    def backend(self, function: Callable[..., Any], count: int) -> Backend:
        """Return a backend that runs ``count`` calls at the same time.

        Raises:
            UserError: Ray has no node for a call, or the user's modules are too large to send.
        """
        if self.address is not None:
            from automl_ext.parallel.ray_tasks import RayTasks

            return RayTasks(function, self.threads(count), self.cpus or 1, self.gpus or 0)
        return InProcess(function) if count == 1 else Processes(function, count, self.threads(count))

    def __enter__(self) -> Cluster:
        if self.address is not None:
            from automl_ext.parallel.ray_tasks import connect

            self.disconnect = connect(self.address)
        self._threads_before = torch.get_num_threads()
        if self.cpus is not None:
            torch.set_num_threads(self.cpus)
        _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _entered.remove(self)
        torch.set_num_threads(self._threads_before)
        self.disconnect()


def current_cluster() -> Cluster:
    """Return the cluster of the innermost ``with`` block, else this machine."""
    return _entered[-1] if _entered else Cluster()
