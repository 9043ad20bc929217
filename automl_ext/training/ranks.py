"""The processes that torchrun starts to train one network together, called ranks.

Every rank holds the whole network and draws the same random numbers: batches, augmentation, sampled operations. It
computes its part of every batch, and DistributedDataParallel averages the gradients, so all ranks have the same
weights. On a CPU, batch norm uses the statistics of a rank's part, and the running statistics are those of rank 0; on
GPUs, it uses the statistics of the whole batch.

Without torchrun there is one rank, and no function here computes or changes anything.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from automl_ext.training.errors import UserError

_rank, _count = 0, 1


def rank() -> int:
    """Return the number of this process, from 0. Rank 0 writes the files and prints."""
    return _rank


def count() -> int:
    """Return the number of ranks."""
    return _count


def local_rank() -> int:
    """Return the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def requested() -> int:
    """Return the number of ranks that torchrun has started, from ``WORLD_SIZE``; 1 without torchrun."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal():
        raise UserError(f"WORLD_SIZE: expected a number, as torchrun sets it, got {size!r}")
    return int(size)


def join() -> None:
    """Connect the ranks that torchrun has started, until the process ends. Without torchrun it does nothing.

    Raises:
        UserError: the ranks cannot be connected; or ``--max-restarts`` is set without the environment variable that
            restarts need.
    """
    global _rank, _count
    if requested() == 1 or _count > 1:
        return
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The store of the agent outlives a restart, with addresses of the ranks that have ended (torch 2.11 to 2.13).
        raise UserError("torchrun --max-restarts: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment")
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except (ValueError, RuntimeError) as error:
        raise UserError(f"torchrun: {str(error).partition(chr(10))[0]}") from None
    atexit.register(dist.destroy_process_group)
    _rank, _count = dist.get_rank(), dist.get_world_size()
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view")  # of layers with one channel; harmless
    if _rank > 0:
        logging.getLogger("automl_ext").setLevel(logging.ERROR)  # shows no progress


def data_parallel(network: nn.Module) -> nn.Module:
    """Return the module that computes the forward pass in training. With one rank it is the network itself.

    DistributedDataParallel is told that parameters may be unused, because supernets sample operations, and cells may
    have operations without a path to the output. With this option it never rebuilds its buckets of gradients, on which
    rounding depends. So a resumed run is exact.
    """
    if _count == 1:
        return network
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # replaces the layers inside the network
    return nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)


def part(total: int) -> slice:
    """Return this rank's part of a batch of ``total`` images. All parts have one size; at most the last few are unused.

    Because of the equal sizes, the mean over the ranks is the mean over the images.
    """
    size = total // _count
    return slice(_rank * size, (_rank + 1) * size)


def mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor over the ranks."""
    if _count == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / _count


def from_first(value: Any = None) -> Any:
    """Return the value that rank 0 passes. The other ranks' argument is ignored."""
    values = [value]
    if _count > 1:
        dist.broadcast_object_list(values)
    return values[0]
