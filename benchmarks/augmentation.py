"""Compare DQN from images with and without random shifts (DrQ) and a contrastive loss on the encoder (CURL).

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py --seeds 0 1 2 [--only TASK ...] [--variant NAME ...]
        [--steps 10000] [--json benchmarks/results/augmentation.json]

All variants train for the same number of steps with the same settings, SETTINGS. The last policy plays 30 episodes with
its best actions. CPU-seconds are those of acting and learning. Runs whose row the file has are not repeated; seeds are
the outer loop, so that an interrupted benchmark has equally many seeds of each variant. Needs the extra minigrid, and
gymnasium[classic-control].
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

EPISODES = 30
TASKS: dict[str, dict[str, Any]] = {  # the environments' options
    "CartPole": {"env_id": "CartPole-v1", "pixels": True, "frame_stack": 4},  # uint8 [4, 64, 64, 3]
    "MiniGrid Empty-6x6": {  # the whole grid, uint8 [48, 48, 3]
        "env_id": "MiniGrid-Empty-6x6-v0",
        "wrapper": ("minigrid.wrappers:RGBImgObsWrapper", "minigrid.wrappers:ImgObsWrapper"),
    },
}
VARIANTS: dict[str, dict[str, Any]] = {  # the extras' options
    "without": {},
    "shift": {"augment": "shift"},
    "contrastive": {"contrastive": 1.0},
    "both": {"augment": "shift", "contrastive": 1.0},
}
# Chosen with seed 5 and without extras. With the defaults, DQN learns nothing on either task in 10,000 steps.
SETTINGS: dict[str, Any] = {
    "batch_size": 32,
    "buffer_size": 10_000,
    "learning_starts": 2_000,
    "exploration_fraction": 0.5,
    "final_epsilon": 0.1,
    "lr": 5e-4,
    "gamma": 0.95,
    "n_step": 5,
    "double": True,
    "prioritized": True,
}


def made(task: str, variant: str, seed: int, steps: int) -> Any:
    """Return a new agent."""
    from automl_ext import rl
    from automl_ext.rl.extras import Augment, Contrastive

    kinds = {"augment": Augment, "contrastive": Contrastive}
    extras = [kinds[name](value) for name, value in VARIANTS[variant].items()]
    options = {name: value for name, value in TASKS[task].items() if name != "env_id"}
    return rl.make("dqn", TASKS[task]["env_id"], extras=extras, seed=seed, total_steps=steps, **options, **SETTINGS)


def run(rows: list[dict[str, Any]], task: str, variant: str, seed: int, steps: int, path: Path) -> None:
    """Make a run that the rows do not have, and write its row."""
    from automl_ext.training.machine.environment import cpu_name

    key = {"task": task, "variant": variant, "seed": seed, "steps": steps}
    if any(key.items() <= row.items() for row in rows):
        return
    agent = made(task, variant, seed, steps)
    start = time.process_time()
    while agent.envs.steps < steps:
        agent.iterate()
    seconds = time.process_time() - start
    found = {"updates": agent.updates, "return": round(float(agent.evaluate(EPISODES, seed + 1_000).mean()), 3)}
    agent.close()
    cpu = f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
    rows.append(key | found | {"cpu_seconds": round(seconds, 1), "cpu": cpu})
    print(rows[-1], flush=True)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/augmentation.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    for seed in args.seeds:
        for task in args.only:
            for variant in args.variant:
                run(rows, task, variant, seed, args.steps, args.json)


if __name__ == "__main__":
    main()
