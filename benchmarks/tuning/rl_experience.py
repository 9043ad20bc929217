"""Build the portfolios of A2C, PPO and DQN, and judge them on environments that they were not built from.

    OMP_NUM_THREADS=1 python benchmarks/tuning/rl_experience.py --out runs/rl-experience [--only a2c ppo dqn] \\
        [--json benchmarks/results/rl_experience.json] [--portfolios runs/portfolios]

For each environment, ``automl-ext tune`` evaluates the default settings and the same random points, each with two
seeds. The value of a point is the mean return of its last policies. The portfolio of all environments but one is then
looked up in the values of that one, beside random points. Finished trials are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tabular_parts"))
from draws import expected_best

from automl_ext.training.machine.environment import cpu_name
from automl_ext.tune.experience import file_name
from automl_ext.tune.past_studies import PastStudy, PastTrial, read_study
from automl_ext.tune.portfolio_building import build_portfolio, key

ENVIRONMENTS = {  # environment steps of a training
    "CartPole-v1": 20_000,
    "Acrobot-v1": 50_000,
    "LunarLander-v3": 100_000,
    "automl_ext/Catch-v0": 20_000,
    "Pendulum-v1": 50_000,
}
DISCRETE = [name for name in ENVIRONMENTS if name != "Pendulum-v1"]
ALGORITHMS = {"a2c": list(ENVIRONMENTS), "ppo": list(ENVIRONMENTS), "dqn": DISCRETE}
POINTS, SEED, TRIAL_SEEDS = 33, 7, 2  # points: the defaults and 32 random ones
SIZE = 8  # of the portfolios that are written
SHOWN = (1, 4, 8)  # trials after the one of the defaults


def study(algorithm: str, environment: str, out: Path) -> PastStudy:
    """Evaluate the points on an environment. The empty point stands for the defaults, which trial 0 has."""
    folder = out / algorithm / environment.replace("/", "-")
    if not (folder / "result.json").is_file():
        steps = str(ENVIRONMENTS[environment])
        words = ["train", algorithm, "--env-id", environment, "--total-steps", steps, "--eval-every", steps]
        words += ["--final-episodes", "30", "--seed", str(SEED)]
        words += ["--sampler", "random", "--trials", str(POINTS), "--trial-seeds", str(TRIAL_SEEDS)]
        command = [sys.executable, "-m", "automl_ext", "tune", *words, "--out", str(folder), "--resume", "auto"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = read_study(folder)
    return replace(found, trials=[PastTrial({}, found.trials[0].value), *found.trials[1:]])


def judged(studies: list[PastStudy], left_out: PastStudy, environment: str) -> dict[str, Any]:
    """Compare the portfolio of the other studies with random points on the study left out, at equal trials.

    Both are preceded by the trial of the defaults. Failed trials count as the worst value of the study.
    """
    worst = min(trial.value for trial in left_out.trials if trial.value is not None)
    values = [worst if trial.value is None else trial.value for trial in left_out.trials]
    by_point = {key(trial.point): value for trial, value in zip(left_out.trials, values, strict=True)}
    built = build_portfolio([study for study in studies if study is not left_out], max(SHOWN))
    portfolio = [by_point[key(point)] for point in built.points]
    row: dict[str, Any] = {"environment": environment, "defaults": round(values[0], 2)}
    for trials in SHOWN:
        row[f"portfolio_{trials}"] = round(max(values[0], *portfolio[:trials]), 2)
        drawn = [-max(values[0], value) for value in values[1:]]  # losses, of the defaults and a point together
        row[f"random_{trials}"] = round(-expected_best(drawn, trials), 2)
    return row | {"median": round(float(np.median(values)), 2), "best": round(max(values), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--portfolios", type=Path, help="folder to write the portfolios to")
    args = parser.parse_args()
    for algorithm in args.only:
        environments = ALGORITHMS[algorithm]
        studies = [study(algorithm, environment, args.out) for environment in environments]
        rows = [
            {"algorithm": algorithm, "steps": ENVIRONMENTS[name], **judged(studies, left_out, name)}
            for name, left_out in zip(environments, studies, strict=True)
        ]
        for row in rows:
            print(row, flush=True)
        if args.json:
            known = json.loads(args.json.read_text())["rows"] if args.json.is_file() else []
            rows = [row for row in known if row["algorithm"] != algorithm] + rows
            about = {"command": "python benchmarks/tuning/rl_experience.py", "machine": f"1 thread of {cpu_name()}"}
            content = about | {"points": POINTS, "trial_seeds": TRIAL_SEEDS, "rows": rows}
            args.json.write_text(json.dumps(content).replace('{"algorithm"', '\n{"algorithm"') + "\n")
        if args.portfolios:
            built = build_portfolio(studies, SIZE, f"benchmarks/tuning/rl_experience.py: {', '.join(environments)}")
            (args.portfolios / file_name(built.command)).write_text(json.dumps(built.as_dict(), indent=1) + "\n")


if __name__ == "__main__":
    main()
