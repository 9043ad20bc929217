"""Learn with training steps in one call and with the composed ones, seed by seed: the returns must agree.

    OMP_NUM_THREADS=1 python benchmarks/step_learning.py [--seeds 5] [--json FILE]

Settings are the defaults. The composed agent has a method of its own, so that it learns and acts as the algorithm's
file says. Returns are means of 20 new episodes with the last policy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from defaults import Courier

from automl_ext import rl

# algorithm, environment, steps
TASKS: list[tuple[str, Any, int]] = [
    ("ppo", "CartPole-v1", 50_000),
    ("ppo", "LunarLander-v3", 200_000),
    ("ppo", Courier, 30_000),
    ("dqn", "CartPole-v1", 25_000),
    ("dqn", "Acrobot-v1", 50_000),
    ("dqn", Courier, 30_000),
    ("a2c", "CartPole-v1", 100_000),
]


def learned(algorithm: str, env: Any, steps: int, seed: int, composed: bool) -> float:
    agent = rl.make(algorithm, env, seed=seed, total_steps=steps)
    if composed:
        name = "step" if algorithm == "dqn" else "loss"
        setattr(agent, name, getattr(agent, name))
    assert bool(agent.fused()) != composed
    while agent.envs.steps < steps:
        agent.iterate()
    try:
        return float(agent.evaluate(20, seed=seed).mean())
    finally:
        agent.close()


def standard_error(returns: list[float]) -> float:
    return statistics.stdev(returns) / len(returns) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for algorithm, env, steps in TASKS:
        start = time.process_time()
        returns = {
            kind: [learned(algorithm, env, steps, seed, kind == "composed") for seed in range(args.seeds)]
            for kind in ("fused", "composed")
        }
        task = env if isinstance(env, str) else "courier"
        rows.append({"algorithm": algorithm, "task": task, "steps": steps, "returns": returns})
        found = (f"{kind} {statistics.mean(r):.1f} (se {standard_error(r):.1f})" for kind, r in returns.items())
        print(algorithm, task, *found, f"{time.process_time() - start:.0f} CPU-s", flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
