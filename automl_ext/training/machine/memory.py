"""The memory of the machine: its size, freed blocks, failed allocations, and denormal numbers."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from automl_ext.training.errors import UserError

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # versions 2 and 1

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Make the C library keep freed memory, for the rest of the process.

    By default the library returns large blocks to the system. Allocating tensors of the same size again then causes
    page faults, which often take longer than the op. The commands of automl_ext call this at their start; a script of
    yours can call it before its first tensor. The process then keeps its largest memory until it ends. Only glibc (most
    Linux distributions) has these settings; elsewhere this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)  # else, each block above 32 MB would be new memory
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal float32 numbers (below 1.2e-38) to 0 in this thread's CPU arithmetic, inside the block.

    The previous mode is restored on exit. This is for Adam: the gradient of a unit that is never active is 0, so each
    step multiplies its moving average by β₁ = 0.9. After a few hundred steps the average is a denormal number, with
    which most CPUs compute much more slowly.
    """
    before = float(torch.tensor(1e-39) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def machine_memory() -> int:
    """Return the bytes of memory that this process can use: the machine's, or the limit of its container."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            sizes.append(int(Path(path).read_text()))
    return min(sizes)


def check_memory(name: str, needed: int) -> None:
    """Raise UserError for an option that needs more memory than the machine has.

    Raises:
        UserError: the machine has less; the message names the option, the bytes that it needs and the bytes available.
    """
    available = machine_memory()
    if needed > available:
        size = f"{needed / 1e9:,.1f}" if needed < 1e18 else "more than 1,000,000,000"  # no float holds every int
        raise UserError(f"{name}: needs {size} GB of memory, this machine has {available / 1e9:,.1f} GB")


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception reports a failed allocation. torch's CPU allocator raises a plain RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
