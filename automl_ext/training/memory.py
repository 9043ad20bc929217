"""How the C library treats memory that is freed."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for the rest of the process.

    Else it gives large blocks back, and the tensors of the next step fault in again, page by page: 5,000 faults and
    4 % of the time of an update of Dreamer. It is told so where it is glibc; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that is allowed
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
