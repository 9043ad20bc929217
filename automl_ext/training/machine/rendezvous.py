"""Rendezvous of the ranks that torchrun starts, also after a restart."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch.distributed as dist


def agree(store: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return the part of a store that the ranks of this start share with no ranks of an earlier start.

    torchrun keeps one store when it restarts ranks (torch 2.11 to 2.13). A rank would find the addresses of the ranks
    before the restart there, and connect to ports that are closed, or of another program. So rank 0 draws a name, the
    others answer with it and a name of their own, and rank 0 lists the answers.

    Args:
        store: the store that torchrun or rank 0 serves.
        rank: number of this process.
        size: number of processes.
        timeout: longest wait for the other ranks.

    Raises:
        RuntimeError: a rank did not answer in time.
    """
    own = uuid.uuid4().hex
    until = time.monotonic() + timeout.total_seconds()
    if rank == 0:
        store.set("start", own)
        answers = [_poll(partial(_answer, store, r, own), f"rank {r}", until) for r in range(1, size)]
        store.set(f"members/{own}", " ".join(answers))
        return dist.PrefixStore(own, store)
    return dist.PrefixStore(_poll(partial(_start, store, rank, own), "rank 0", until), store)


def _answer(store: dist.Store, rank: int, start: str) -> str | None:
    """Return the name of a rank if it has answered to this start."""
    answered, name = store.get(f"answer/{rank}").decode().split()
    return name if answered == start else None


def _start(store: dist.Store, rank: int, own: str) -> str | None:
    """Answer to the newest start. Return its name if rank 0 has listed this rank."""
    start = store.get("start").decode()  # after a restart, the name of the previous start until rank 0 sets its own
    store.set(f"answer/{rank}", f"{start} {own}")
    key = f"members/{start}"
    return start if store.check([key]) and own in store.get(key).decode().split() else None


def _poll(ask: Callable[[], str | None], whom: str, until: float) -> str:
    while True:
        found = ask()
        if found is not None:
            return found
        if time.monotonic() > until:
            raise RuntimeError(f"no answer of {whom}")
        time.sleep(0.01)
