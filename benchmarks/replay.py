"""Measure prioritized replay in more detail than ``automl-ext bench``: ``python benchmarks/replay.py [--json FILE]``.

Measures the time to add a transition with eight environments, and the time of a cycle with image observations compared
with tianshou 2, if it is installed. A cycle samples a batch with its importance weights and updates its priorities.
Contenders alternate, and the times are medians. A ratio above 1 means that ours is faster. For steady numbers pin the
process:
``OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/replay.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_ext.rl import PrioritizedReplay, Step

BATCH_SIZE, N_ENVS = 256, 8
Observation = tuple[tuple[int, ...], Any]  # shape, dtype


def observations(rng: np.random.Generator, n: int, observation: Observation) -> np.ndarray:
    return rng.integers(256, size=(n, *observation[0])).astype(observation[1])


def make_ours(capacity: int, observation: Observation) -> tuple[PrioritizedReplay, Callable[[], None]]:
    """Return a full replay, and a function that adds one step of eight environments."""
    rng = np.random.default_rng(0)
    replay = PrioritizedReplay(capacity, *observation, n_envs=N_ENVS, generator=rng)
    steps = observations(rng, 50 * N_ENVS, observation).reshape(50, N_ENVS, *observation[0])
    actions, rewards, never = np.zeros(N_ENVS, np.int64), np.ones(N_ENVS), np.zeros(N_ENVS, bool)
    at = 0

    def add() -> None:
        nonlocal at
        ended = at % 200 == 199
        following = steps[(at + 1) % 50]
        replay.add(Step(steps[at % 50], actions, rewards, following, np.full(N_ENVS, ended), never, ~never))
        at += 1

    while len(replay) < capacity // N_ENVS * N_ENVS:
        add()
    return replay, add


def ours_cycle(replay: PrioritizedReplay, errors: torch.Tensor) -> Callable[[], None]:
    def cycle() -> None:
        batch = replay.sample(BATCH_SIZE)
        replay.update_priorities(batch.indices, errors)

    return cycle


def tianshou_cycle(capacity: int, observation: Observation, errors: torch.Tensor) -> Callable[[], None] | None:
    """Return a call that makes one cycle of tianshou's buffer, which is full; None if tianshou is not installed."""
    try:
        from tianshou.data import Batch, PrioritizedReplayBuffer
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    buffer = PrioritizedReplayBuffer(capacity, alpha=0.6, beta=0.4)
    obs = observations(rng, 2, observation)
    no = np.array(False)
    buffer.add(
        Batch(obs=obs[0], act=np.int64(0), rew=1.0, terminated=no, truncated=no, done=no, obs_next=obs[1], info=Batch())
    )
    # Adding a million transitions one by one takes minutes: write directly where add() would write.
    for name in ("obs", "obs_next"):
        getattr(buffer._meta, name)[:] = observations(rng, capacity, observation)
    buffer._size = capacity
    buffer.weight[np.arange(capacity)] = 1.0

    def cycle() -> None:
        _, indices = buffer.sample(BATCH_SIZE)
        buffer.update_weight(indices, errors)

    return cycle


def medians(calls: list[Callable[[], None]], seconds: float) -> list[float]:
    """Return the median seconds per call of each function. They alternate every 50 calls."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 250:
        for call, results in zip(calls, times, strict=True):
            for _ in range(50):
                start = time.perf_counter()
                call()
                results.append(time.perf_counter() - start)
    return [statistics.median(results) for results in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--seconds", type=float, default=5, help="minimum time per row")
    args = parser.parse_args()
    torch.empty(7_500_000)  # after freeing a large block, the C library keeps memory; else every call page-faults
    errors = torch.rand(BATCH_SIZE) + 0.01
    rows = []
    cases = (("vector", 1_000_000, ((4,), np.float32)), ("image", 20_000, ((4, 84, 84), np.uint8)))
    for name, capacity, observation in cases:
        replay, add = make_ours(capacity, observation)
        add_s = medians([add], 1)[0] / N_ENVS
        row = {"case": name, "capacity": capacity, "add_s": add_s}
        text = f"{name}: add {1e6 * add_s:.2f} µs per transition"
        if name == "image":
            theirs = tianshou_cycle(capacity, observation, errors)
            ours_s, *rest = medians([ours_cycle(replay, errors), *([theirs] if theirs else [])], args.seconds)
            row |= {"batch_size": BATCH_SIZE, "ours_s": ours_s}
            text += f"; ours {BATCH_SIZE / ours_s / 1e6:.2f}M samples/s"
            if rest:
                row |= {"tianshou": version("tianshou"), "tianshou_s": rest[0], "ratio": rest[0] / ours_s}
                text += f", tianshou {BATCH_SIZE / rest[0] / 1e6:.2f}M samples/s, ratio {rest[0] / ours_s:.2f}"
        print(text)
        rows.append(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
