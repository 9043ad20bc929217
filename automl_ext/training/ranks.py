"""The processes that torchrun starts to train one network together, called ranks.

Every rank holds the whole network and draws the same random numbers. Each computes its part of every batch, and the
gradients of the parts are added up, so N ranks learn what one process learns, up to rounding. Sums are computed in
float64, so their order has no effect on float32 results but in rare cases, and every rank receives the same bits.

Without torchrun there is one rank, and no function here computes or changes anything.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from automl_ext.training.errors import UserError

TIMEOUT = timedelta(minutes=30)  # of an exchange, in which ranks also wait for rank 0 to evaluate an agent
_rank, _count = 0, 1


def rank() -> int:
    """Return the number of this process, from 0. Rank 0 writes the files and evaluates agents."""
    return _rank


def count() -> int:
    """Return the number of ranks."""
    return _count


def local_rank() -> int:
    """Return the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def requested() -> int:
    """Return the number of ranks that torchrun has started, from ``WORLD_SIZE``; 1 without torchrun.

    Raises:
        UserError: a variable of torchrun is missing or not a number.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return 1
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"):
        if not os.environ.get(name, "").isdecimal():
            raise UserError(f"{name}: expected a number, as torchrun sets it, got {os.environ.get(name)!r}")
    if not int(os.environ["RANK"]) < int(size):
        raise UserError(f"RANK: expected a number below WORLD_SIZE={size}, got {os.environ['RANK']}")
    if not os.environ.get("MASTER_ADDR"):
        raise UserError("MASTER_ADDR: expected a host, as torchrun sets it, got none")
    return int(size)


def join() -> None:
    """Connect the ranks that torchrun has started, until the process ends. Without torchrun it does nothing.

    Raises:
        UserError: the ranks cannot be connected.
    """
    global _rank, _count
    if requested() == 1 or _count > 1:
        return
    from automl_ext.training.machine.rendezvous import agree

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _talking():
        store, own, size = next(rendezvous("env://", timeout=TIMEOUT))
        store = agree(store, own, size, TIMEOUT)
        dist.init_process_group(backend, store=store, rank=own, world_size=size, timeout=TIMEOUT)
    atexit.register(dist.destroy_process_group)
    _rank, _count = dist.get_rank(), dist.get_world_size()


def part(total: int) -> slice:
    """Return the part of ``total`` items that this rank computes. The sizes of the parts differ by at most 1."""
    return slice(_rank * total // _count, (_rank + 1) * total // _count)


def size(total: int) -> int:
    """Return the number of items in this rank's part of ``total`` items."""
    own = part(total)
    return own.stop - own.start


def add_up(x: Tensor) -> Tensor:
    """Replace a tensor by its sum over the ranks, in place. Return it."""
    if _count > 1:
        total = x.detach().to(torch.float64, copy=True)
        with _talking():
            dist.all_reduce(total)
        x.detach().copy_(total)
    return x


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their sums over the ranks, in one exchange.

    Parameters without a gradient are left out: they are the same on every rank, because all ranks run the same
    operations.
    """
    if _count == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.cat([gradient.flatten().double() for gradient in gradients])
    with _talking():
        dist.all_reduce(total)
    for gradient, summed in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def totals(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the sums over the ranks of measurements by name, numbers or 0-dim tensors."""
    if _count == 1:
        return measured
    summed = add_up(torch.stack([torch.as_tensor(value).detach().double().cpu() for value in measured.values()]))
    return dict(zip(measured, summed.unbind(), strict=True))


def gather(own: Tensor, total: int) -> Tensor:
    """Concatenate the parts of all ranks.

    Args:
        own: this rank's :func:`part` of the rows, [n, ...].
        total: number of rows of all ranks.
    """
    if _count == 1:
        return own
    longest = -(-total // _count)
    padded = own.new_zeros(longest, *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(_count)]
    with _talking():
        dist.all_gather(parts, padded)
    sizes = [(r + 1) * total // _count - r * total // _count for r in range(_count)]
    return torch.cat([x[:n] for x, n in zip(parts, sizes, strict=True)])


def gather_arrays(own: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Concatenate arrays of all ranks along the first axis, in one exchange. Shapes and dtypes are equal on all."""
    message = torch.from_numpy(np.concatenate([np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in own]))
    parts = [torch.empty_like(message) for _ in range(_count)]
    with _talking():
        dist.all_gather(parts, message)
    at, found = 0, []
    for x in own:
        rows = [p[at : at + x.nbytes].numpy().view(x.dtype).reshape(x.shape) for p in parts]
        found.append(np.concatenate(rows))
        at += x.nbytes
    return found


def gather_states(state: Any) -> list[Any]:
    """Return the values of all ranks: tensors and plain Python values, as in a checkpoint."""
    if _count == 1:
        return [state]
    message = _encoded(state)
    sizes = gather(torch.tensor([len(message)]), _count).tolist()
    message = torch.cat([message, message.new_zeros(max(sizes) - len(message))])
    parts = [torch.empty_like(message) for _ in sizes]
    with _talking():
        dist.all_gather(parts, message)
    return [_decoded(x[:n]) for x, n in zip(parts, sizes, strict=True)]


def from_first(state: Any = None) -> Any:
    """Return the value that rank 0 passes: tensors and plain Python values. The other ranks' argument is ignored."""
    if _count == 1:
        return state
    message = _encoded(state if _rank == 0 else None)
    size = torch.tensor([len(message)])
    with _talking():
        dist.broadcast(size, 0)
        message = message if _rank == 0 else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(message, 0)
    return state if _rank == 0 else _decoded(message)


def _encoded(state: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _decoded(message: Tensor) -> Any:
    return torch.load(io.BytesIO(message.numpy().tobytes()), map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Make a failed exchange a one-line error."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].partition(". This is typically")[0]
        raise UserError(f"rank {_rank} lost the connection to the other ranks: {reason}") from None
