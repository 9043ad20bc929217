"""Train the algorithms with several seeds and collect their returns.

    OMP_NUM_THREADS=1 python benchmarks/rl_learning.py --out runs/learning [--only NAME ...] [--json FILE]

Takes about five hours on one core in total, mostly for MinAtar. Interrupted runs are resumed. ``--json`` replaces the
rows of these tasks in FILE. To plot the curves:

    automl-ext plot runs/learning/dqn-minatar-* runs/learning/rainbow-minatar-*
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from automl_ext.training.pictures.curves import read_metrics

ACROBOT = (
    "--env-id Acrobot-v1 --total-steps 100000 --eval-every 10000 --lr 6.3e-4 --batch-size 128 --buffer-size 50000 "
    "--learning-starts 0 --target-update-interval 250 --train-freq 4 --gradient-steps -1 --exploration-fraction 0.12 "
    "--final-epsilon 0.1 --n-step 1 --no-lr-decay --hidden 256 256"
)
MINATAR = "--preset minatar --env-id MinAtar/{}-v1"
ZOO = (  # Stable-Baselines3's zoo for CartPole-v1
    "--env-id CartPole-v1 --hidden 256 256 --lr 2.3e-3 --no-lr-decay --n-step 1 --train-freq 256 --gradient-steps 128 "
    "--target-update-interval 10"
)
SWINGUP = (
    "--env-id dmc/cartpole-swingup --action-repeat 2 --continue-scale 0 --total-steps 50000 --eval-every 2500 "
    "--eval-episodes 5"
)


class Task(NamedTuple):
    what: str
    arguments: str  # command-line arguments of ``automl-ext train``
    seeds: int


TASKS = {
    "a2c-cartpole": Task("A2C CartPole-v1", "a2c --env-id CartPole-v1", 5),
    "a3c-cartpole": Task("A3C CartPole-v1, 2 processes", "a3c --env-id CartPole-v1", 3),
    "reinforce-cartpole": Task("REINFORCE CartPole-v1", "reinforce --env-id CartPole-v1", 3),
    "dqn-cartpole": Task("DQN CartPole-v1", "dqn --env-id CartPole-v1", 5),
    "dqn-cartpole-zoo": Task("DQN CartPole-v1, one-step targets, constant rate", f"dqn {ZOO}", 5),
    "dqn-acrobot": Task("DQN Acrobot-v1, settings for it", f"dqn {ACROBOT}", 3),
    "a2c-lunarlander": Task(
        "A2C LunarLander-v3", "a2c --env-id LunarLander-v3 --total-steps 1000000 --final-episodes 100", 3
    ),
    "ppo-cartpole": Task("PPO CartPole-v1, --preset cartpole-zoo", "ppo --preset cartpole-zoo --env-id CartPole-v1", 5),
    "ppo-lunarlander": Task("PPO LunarLander-v3", "ppo --preset lunarlander", 5),
    "dqn-minatar-breakout": Task("DQN MinAtar Breakout", f"dqn {MINATAR.format('Breakout')}", 5),
    "dqn-minatar-freeway": Task("DQN MinAtar Freeway", f"dqn {MINATAR.format('Freeway')}", 5),
    "rainbow-minatar-breakout": Task("Rainbow MinAtar Breakout", f"rainbow {MINATAR.format('Breakout')}", 5),
    "rainbow-minatar-freeway": Task("Rainbow MinAtar Freeway", f"rainbow {MINATAR.format('Freeway')}", 5),
    "dreamer-cartpole": Task("Dreamer CartPole-v1", "dreamer --env-id CartPole-v1", 3),
    "dreamer-pendulum": Task("Dreamer Pendulum-v1", "dreamer --env-id Pendulum-v1 --reward-scale 0.1", 3),
    "dreamer-swingup": Task("Dreamer dm_control cartpole swingup", f"dreamer {SWINGUP}", 3),
}


def train(name: str, out: Path) -> list[dict[str, Any]]:
    """Train one task. Return a row per seed, with the learning curve under ``evaluations``."""
    task, rows = TASKS[name], []
    for seed in range(task.seeds):
        run = out / f"{name}-{seed}"
        if not (run / "result.json").exists():
            arguments = [*task.arguments.split(), "--seed", str(seed), "--out", str(run), "--resume", "auto"]
            subprocess.run([sys.executable, "-m", "automl_ext", "train", *arguments], check=True)
        result = json.loads((run / "result.json").read_text())
        kept = {key: round(result[key], 1) for key in ("eval_return_mean", "best_eval_return", "cpu_seconds")}
        row = {"what": task.what, "command": f"automl-ext train {task.arguments} --seed S", "seed": seed}
        rows.append(row | kept | {"env_steps": result["env_steps"], "evaluations": evaluations(run)})
    return rows


def evaluations(run: Path) -> list[tuple[int, float]]:
    """Return the learning curve: pairs of environment steps and mean evaluation return."""
    rows = read_metrics(run)
    return [(row["step"], round(row["eval_return"], 2)) for row in rows if row.get("eval_return") is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    for name in args.only:
        rows = train(name, args.out)
        print(TASKS[name].what, [row["eval_return_mean"] for row in rows], [row["best_eval_return"] for row in rows])
        if args.json:
            others = json.loads(args.json.read_text()) if args.json.exists() else []
            kept = [row for row in others if row["what"] != TASKS[name].what]
            args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept + rows) + "\n]\n")


if __name__ == "__main__":
    main()
