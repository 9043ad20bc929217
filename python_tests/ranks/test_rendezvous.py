"""Ranks that torchrun starts again find each other, not the ranks before the restart."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from automl_ext.training.machine.rendezvous import agree

TIMEOUT = timedelta(seconds=60)


@pytest.mark.parametrize("first", range(3))
def test_restarted_ranks_share_a_part_of_the_store_without_old_keys(first: int) -> None:
    store = dist.HashStore()

    def join(rank: int) -> dist.Store:
        time.sleep(0 if rank == first else 0.2)  # the rank that comes first finds what the last start has left
        return agree(store, rank, 3, TIMEOUT)

    for start in range(3):
        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(join, range(3)))
        assert not any(part.check(["address"]) for part in parts)
        parts[0].set("address", f"of start {start}")
        assert [part.get("address") for part in parts] == [f"of start {start}".encode()] * 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_rank_is_named(rank: int) -> None:
    store = dist.HashStore()
    store.set("start", "old")
    store.set("answer/1", "old name")
    store.set("members/old", "name")
    with pytest.raises(RuntimeError, match=f"no answer of rank {1 - rank}"):
        agree(store, rank, 2, timedelta(seconds=0.1))
