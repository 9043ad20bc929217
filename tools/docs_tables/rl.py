"""Tables of reinforcement learning: docs/results/rl.md and docs/choosing.md."""

from __future__ import annotations

import math
import statistics
from operator import itemgetter
from typing import Any

from docs_tables.text import grouped, integer, load, returns, span, table


def learning(rows: list[dict[str, Any]]) -> str:
    lines = []
    for what, runs in grouped(rows, itemgetter("what")).items():
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
    groups = grouped([*load("rl_learning"), *load("rl_dreamer")["learning"]["rows"]], itemgetter("what"))
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

    Then, rows have the mean difference over the tasks that the algorithm's defaults were chosen on, over the others and
    over those with presets, with and without the task with the largest difference, on which it may depend.
    """
    stored = load("defaults")
    ends, runs = stored["ends"], stored["rows"]
    lines = []
    for algorithm in dict.fromkeys(run["algorithm"] for run in runs):
        differences: dict[str, dict[str, float]] = {}
        for task in dict.fromkeys(run["task"] for run in runs if run["algorithm"] == algorithm):
            low, high = ends[task]["random"], ends[task]["best"]
            digits = 2 if max(abs(low), abs(high)) < 10 else 0
            cells, scores = [returns([low, high], digits)], []
            for side in ("ours", "sb3"):
                found = [run for run in runs if (run["algorithm"], run["task"], run["side"]) == (algorithm, task, side)]
                scores.append([(run["return"] - low) / (high - low) for run in found])
                cells += [returns([run["return"] for run in found], digits), with_error(scores[-1]), cpu_seconds(found)]
            if all(scores):
                difference = statistics.fmean(scores[0]) - statistics.fmean(scores[1])
                group = "tasks that its defaults were chosen on"
                if task not in stored["chosen_on"][algorithm]:
                    group = "other tasks" if ends[task]["settings"] == "defaults" else "tasks with presets"
                differences.setdefault(group, {})[task] = difference
                error = f" ± {math.hypot(*map(standard_error, scores)):.2f}" if min(map(len, scores)) > 1 else ""
                cells.append(signed(difference) + error)
            else:
                cells.append("")
            lines.append([f"{algorithm.upper()} {task}", *(cell or "–" for cell in cells)])
        for group, by_task in differences.items():
            largest = max(by_task, key=lambda task: by_task[task])
            for name in ("", f", without {largest}") if len(by_task) > 2 else ("",):
                values = [value for task, value in by_task.items() if not (name and task == largest)]
                cells = [f"{algorithm.upper()}, mean: {group}{name}", *[""] * 7]
                lines.append([*cells, signed(statistics.fmean(values))])
    header = "task | random, best | returns | score | CPU-s | Stable-Baselines3 | score | CPU-s | difference of scores"
    return table(header, lines)


def augmentation() -> str:
    lines = []
    groups = grouped(load("augmentation"), itemgetter("task", "steps", "variant"))
    for (task, steps, variant), runs in groups.items():
        found = [run["return"] for run in runs]
        digits = 2 if max(map(abs, found)) < 10 else 0
        lines.append(
            [task, variant, integer(steps), returns(found, digits), with_error(found, digits), cpu_seconds(runs)]
        )
    return table("DQN from pixels | variant | steps | return of the last policy, per seed | mean | CPU-seconds", lines)


def standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


def with_error(values: list[float], digits: int = 2) -> str:
    """Return the mean, and its standard error if there are several values; nothing of none."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}".replace("-", "−")
    return f"{mean} ± {standard_error(values):.{digits}f}" if len(values) > 1 else mean


def cpu_seconds(runs: list[dict[str, Any]]) -> str:
    return f"{statistics.fmean(run['cpu_seconds'] for run in runs):.0f}" if runs else ""


def signed(value: float) -> str:
    """Return a number with its sign; of what rounds to zero, +0.00."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")
