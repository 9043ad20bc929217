"""Tables of reinforcement learning: docs/results/rl.md and docs/choosing.md."""

from __future__ import annotations

import math
import statistics
from typing import Any

from docs_tables.text import integer, load, returns, span, table


def grouped(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["what"], []).append(row)
    return groups


def learning(rows: list[dict[str, Any]]) -> str:
    lines = []
    for what, runs in grouped(rows).items():
        digits = 1 if "MinAtar" in what else 0
        last, best = ([run[key] for run in runs] for key in ("eval_return_mean", "best_eval_return"))
        steps = f"{round(runs[0]['env_steps'], -3):,}"
        cost = span([run["cpu_seconds"] for run in runs])
        lines.append([what, steps, returns(last, digits), returns(best, digits), cost])
    return table(
        "algorithm and environment | steps, rounded | last policy, per seed | best policy, per seed | CPU-seconds",
        lines,
    )


def rl_learning() -> str:
    return learning(load("rl_learning"))


def dreamer_learning() -> str:
    return learning(load("rl_dreamer")["learning"]["rows"])


def peers() -> str:
    sb3, unit = "stable_baselines3", "steps per CPU-second"
    lines: list[list[Any]] = []
    for name in ("A2C", "PPO", "DQN"):
        found = load(f"rl_{name.lower()}")
        ours, other = (integer(found["medians"][side]) for side in ("automl_ext", sb3))
        lines.append([name, unit, ours, f"{other} (Stable-Baselines3)", found["ratio"]])
    dreamer, a3c = load("rl_dreamer")["updates"], load("rl_a3c")
    d = {name: statistics.median(rates) for name, rates in dreamer["updates_per_cpu_second"].items()}
    p = {name: integer(median) for name, median in a3c["medians"].items()}
    lines += [
        [
            "Dreamer",
            "updates per CPU-second",
            f"{d['automl_ext']:.1f}",
            f"{d['sheeprl']:.1f} (SheepRL)",
            dreamer["median_ratio"],
        ],
        [
            "A3C, two processes",
            "steps per second",
            p["two processes"],
            f"{p['one process']} (one process)",
            a3c["ratio"],
        ],
    ]
    reported = {name: f"{ratio:g}×" for name, ratio in load("rl_peers_reported")["ratio"].items()}
    return table(
        "algorithm | unit | here | other | ratio | reported from an AMD EPYC with AVX-512",
        [[*line[:-1], f"{line[-1]:.2f}×", reported.get(line[0], "–")] for line in lines],
    )


def costs_rl() -> str:
    groups = grouped([*load("rl_learning"), *load("rl_dreamer")["learning"]["rows"]])
    lines = []
    for what in (
        "A2C CartPole-v1",
        "A3C CartPole-v1, 2 processes",
        "PPO CartPole-v1, --preset cartpole-zoo",
        "REINFORCE CartPole-v1",
        "DQN CartPole-v1",
        "Dreamer CartPole-v1",
        "A2C LunarLander-v3",
        "DQN MinAtar Breakout",
        "Rainbow MinAtar Breakout",
    ):
        runs = groups[what]
        steps = round(runs[0]["env_steps"], -3)
        cost = statistics.mean(run["cpu_seconds"] for run in runs)
        best = statistics.mean(run["best_eval_return"] for run in runs)
        per = f"{1000 * cost / steps:.2g}"
        lines.append([what, f"{steps:,}", f"{cost:.0f}", per, f"{best:.0f}"])
    return table("run | steps | CPU-seconds | CPU-seconds per 1,000 steps | best policy's return", lines)


def tuned_agents() -> str:
    rows = []
    for row in load("rl_tuning"):
        shipped, tuned, gain = (row[name] for name in ("shipped", "tuned", "gain"))
        means = [f"{integer(part['mean'])} ± {integer(part['half'])}" for part in (shipped, tuned, gain)]
        rows.append([f"`{row['task']}`", integer(row["steps"]), integer(row["trials"]), *means])
    return table("task | steps | trials | shipped options | tuned options | gain", rows)


def rl_defaults() -> str:
    """Return a row per task and algorithm: returns and scores of the default settings, ours and the peer's.

    Per algorithm, two more rows have the mean difference of the tasks that both sides ran.
    """
    stored = load("defaults")
    ends, runs = stored["ends"], stored["rows"]
    lines = []
    for algorithm in dict.fromkeys(run["algorithm"] for run in runs):
        differences: dict[str, list[float]] = {}
        for task in dict.fromkeys(run["task"] for run in runs if run["algorithm"] == algorithm):
            low, high = ends[task]["random"], ends[task]["best"]
            digits = 2 if max(abs(low), abs(high)) < 10 else 0
            cells, scores = [", ".join(f"{end:.{digits}f}" for end in (low, high))], []
            for side in ("ours", "sb3"):
                found = [run for run in runs if (run["algorithm"], run["task"], run["side"]) == (algorithm, task, side)]
                if not found:
                    cells += ["not run", "–", "–"]
                    continue
                scores.append([(run["return"] - low) / (high - low) for run in found])
                cost = f"{statistics.fmean(run['cpu_seconds'] for run in found):.0f}"
                cells += [returns([run["return"] for run in found], digits), with_error(scores[-1]), cost]
            if len(scores) == 2:
                differences.setdefault(ends[task]["use"], []).append(differ(*scores)[0])
                cells.append("{:+.2f} ± {:.2f}".format(*differ(*scores)).removesuffix(" ± nan"))
            else:
                cells.append("–")
            lines.append([f"{algorithm.upper()} {task}", *[cell.replace("-", "−") for cell in cells]])
        for use, found in differences.items():
            mean = f"{statistics.fmean(found):+.2f}".replace("-", "−")
            lines.append([f"{algorithm.upper()}, mean: {use}", *[""] * 7, mean])
    header = "task | random, best | returns | score | CPU-s | Stable-Baselines3 | score | CPU-s | difference of scores"
    return table(header, lines)


def with_error(scores: list[float]) -> str:
    """Return the mean and its standard error, as text."""
    mean = f"{statistics.fmean(scores):.2f}"
    return f"{mean} ± {statistics.stdev(scores) / len(scores) ** 0.5:.2f}" if len(scores) > 1 else mean


def differ(ours: list[float], other: list[float]) -> tuple[float, float]:
    """Return the difference of the means, and its standard error: NaN if a side has a single seed."""
    difference = round(statistics.fmean(ours) - statistics.fmean(other), 3) + 0.0  # 0.0, not −0.0
    if min(len(ours), len(other)) < 2:
        return difference, math.nan
    return difference, sum(statistics.variance(x) / len(x) for x in (ours, other)) ** 0.5
