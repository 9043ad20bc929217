"""Tune A2C, PPO and DQN, then train with the found and with the shipped options, on other seeds and for equal steps.

    OMP_NUM_THREADS=1 python benchmarks/tuning/rl_tuning.py --out runs/rl-tuning [--only TASK ...] [--workers 2] \\
        [--json benchmarks/results/rl_tuning.json]

Every trial of a task trains the seeds 100, 101 and 102, and its value is their mean. The comparison has seeds 0, 1
and 2. Finished runs are not repeated, and interrupted ones are resumed. ``--json`` replaces the rows of these tasks in
the file. ``--trials`` and ``--steps`` are for a short check.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from automl_ext.training.intervals import t_quantile
from automl_ext.training.machine.environment import cpu_name

TUNING_SEED, SEEDS = 100, (0, 1, 2)


class Task(NamedTuple):
    algorithm: str
    arguments: str
    steps: int
    trials: int = 40


LUNAR_LANDER = "--env-id LunarLander-v3 --eval-episodes 10"
TASKS = {
    "a2c-cartpole": Task("a2c", "--env-id CartPole-v1", 20_000),
    "ppo-cartpole": Task("ppo", "--preset cartpole-zoo --env-id CartPole-v1", 20_000),
    "dqn-cartpole": Task("dqn", "--env-id CartPole-v1", 20_000),
    "a2c-lunarlander": Task("a2c", LUNAR_LANDER, 200_000),
    "ppo-lunarlander": Task("ppo", f"--preset lunarlander {LUNAR_LANDER} --final-episodes 30", 200_000),
    "dqn-lunarlander": Task("dqn", LUNAR_LANDER, 50_000),
}


def automl_ext(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "automl_ext", *words], check=True, stdout=subprocess.DEVNULL)


def tuned(task: Task, out: Path, workers: int) -> dict[str, Any]:
    """Tune a task; return the content of ``result.json``."""
    if not (out / "result.json").exists():
        budget = ["--trials", str(task.trials), "--trial-seeds", "3"]
        options = [*budget, "--pruner", "hyperband", "--workers", str(workers)]
        words = ["tune", "train", task.algorithm, *given(task), "--seed", str(TUNING_SEED), *options]
        automl_ext([*words, "--out", str(out), "--resume", "auto"])
    return json.loads((out / "result.json").read_text())


def given(task: Task) -> list[str]:
    """Return the options of trial 0: the shipped ones, evaluated ten times."""
    return [*task.arguments.split(), "--total-steps", str(task.steps), "--eval-every", str(max(task.steps // 10, 1))]


def trained(algorithm: str, options: list[str], seed: int, out: Path) -> dict[str, Any]:
    """Train with one seed; return the content of ``result.json``."""
    if not (out / "result.json").exists():
        automl_ext(["train", algorithm, *options, "--seed", str(seed), "--out", str(out), "--resume", "auto"])
    return json.loads((out / "result.json").read_text())


def run_task(name: str, task: Task, out: Path, workers: int) -> dict[str, Any]:
    """Tune a task and compare. Return its row."""
    found = tuned(task, out / name / "tuned", workers)
    best = shlex.split(found["command_line"])[3:]  # later flags win: --seed is given again
    variants = {"shipped": given(task), "tuned": best}
    runs = {
        variant: [trained(task.algorithm, options, seed, out / name / f"{variant}-{seed}") for seed in SEEDS]
        for variant, options in variants.items()
    }
    returns = {variant: np.array([run["eval_return_mean"] for run in rows]) for variant, rows in runs.items()}
    gain = returns["tuned"] - returns["shipped"]
    return {
        "task": name,
        "command": f"automl-ext train {task.algorithm} {' '.join(given(task))} --seed S",
        "tuned_options": found["command_line"],
        "steps": task.steps,
        "trials": len(found["trials"]),
        **{state: found[state] for state in ("finished", "pruned", "failed")},
        "tuning_seconds": round(found["seconds"], 1),
        "trial_0": found["first_value"],
        "best_trial": found["best"]["value"],
        **{variant: interval(values) for variant, values in returns.items()},
        "gain": interval(gain),
        "env_steps": {variant: [run["env_steps"] for run in rows] for variant, rows in runs.items()},
        "machine": cpu_name(),
    }


def interval(values: np.ndarray) -> dict[str, Any]:
    """Return the values of the seeds, their mean, and half the width of the 95 % interval of the mean."""
    half = t_quantile(len(values)) * values.std(ddof=1) / np.sqrt(len(values))
    return {
        "seeds": [round(float(v), 2) for v in values],
        "mean": round(float(values.mean()), 2),
        "half": round(float(half), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    for name in args.only:
        task = TASKS[name]
        task = task._replace(trials=args.trials or task.trials, steps=args.steps or task.steps)
        row = run_task(name, task, args.out, args.workers)
        shown = {
            variant: f"{row[variant]['mean']} ± {row[variant]['half']}" for variant in ("shipped", "tuned", "gain")
        }
        print(name, shown, flush=True)
        if args.json:
            others = json.loads(args.json.read_text()) if args.json.exists() else []
            rows = [other for other in others if other["task"] != name] + [row]
            args.json.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    main()
