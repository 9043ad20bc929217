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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_ext.bench.cases.replay_peers import tianshou
from automl_ext.bench.timing import interleaved, warm_allocator
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


def tianshou_cycle(capacity: int, observation: Observation, errors: torch.Tensor) -> Callable[[], object] | None:
    """Return a call that makes one cycle of tianshou's buffer, which is full; None if tianshou is not installed."""
    try:
        import tianshou.data as package
    except ImportError:
        return None
    filled = observations(np.random.default_rng(0), capacity + 1, observation)
    return tianshou(package, filled, torch.ones(capacity), errors, alpha=0.6, beta=0.4)


def medians(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the median seconds per call of each function."""
    times = interleaved(torch.device("cpu"), {str(i): call for i, call in enumerate(calls)}, seconds)
    return [found["median"] for found in times.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--seconds", type=float, default=5, help="minimum time per row")
    args = parser.parse_args()
    warm_allocator()
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
